//! Which scheduler shard owns a destination.
//!
//! A pure function of the destination's UID and the number of shards, which is fixed once per database: every replica
//! of every version must agree, so the hash is written out here (FNV-1a of 64 bits, by Fowler, Noll and Vo, and the
//! finalizer of MurmurHash3, since the low bits of FNV alone depend on the low bits of the bytes alone) and not `std`'s,
//! which may change.

use uuid::Uuid;

/// The shard of a destination, in `0..shards`.
///
/// `shards` is at least 1: the database's settings row forbids less.
pub fn of(destination: Uuid, shards: u16) -> u16 {
    let hash = destination
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    (mixed(hash) % u64::from(shards.max(1))) as u16
}

fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_keeps_its_shard_for_ever() {
        assert_eq!(of(Uuid::from_u128(0), 64), 10);
        assert_eq!(
            of(
                Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e),
                64
            ),
            0
        );
    }

    #[test]
    fn destinations_spread_over_all_shards() {
        let mut seen = [0_u32; 64];
        for n in 0..6400_u128 {
            seen[usize::from(of(Uuid::from_u128(n << 64 | n), 64))] += 1;
        }
        assert!(seen.iter().all(|&n| n > 40), "{seen:?}");
    }
}
