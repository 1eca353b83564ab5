//! A short run of every target: its seeds, and mutations of them that are the same each time.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{fs, panic, path::Path};

const MUTATIONS: usize = 20_000;

/// Of an input, in bytes.
const LONGEST: usize = 16 * 1024;

fn short(name: &str) {
    let (_, run) = fuzz::TARGETS
        .iter()
        .find(|(target, _)| *target == name)
        .expect("a target of this name");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let mut seeds: Vec<Vec<u8>> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("a seed"))
        .collect();
    assert!(!seeds.is_empty(), "{}", folder.display());
    if name == "verification" {
        seeds.extend(fuzz::verification::seeds());
    }
    for seed in &seeds {
        attempt(*run, seed);
    }
    let mut dice = StdRng::seed_from_u64(1);
    for _ in 0..MUTATIONS {
        let input = mutated(&seeds, &mut dice);
        attempt(*run, &input);
    }
}

/// Says which input it was, when one makes a target panic.
fn attempt(run: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = panic::catch_unwind(|| run(input)) {
        eprintln!("this input did: {:?}", input.escape_ascii().to_string());
        panic::resume_unwind(panic);
    }
}

/// One to four changes: a byte, a piece lost, doubled or taken from another seed, a number at its bounds.
fn mutated(seeds: &[Vec<u8>], dice: &mut StdRng) -> Vec<u8> {
    let mut input = seeds[dice.random_range(0..seeds.len())].clone();
    for _ in 0..dice.random_range(1..=4) {
        let at = dice.random_range(0..=input.len());
        let end = dice.random_range(at..=input.len());
        match dice.random_range(0..7) {
            0 => input.insert(at, dice.random()),
            1 if at < input.len() => input[at] ^= 1 << dice.random_range(0..8),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = &seeds[dice.random_range(0..seeds.len())];
                let from = dice.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => input.truncate(at),
            _ => {
                const WORDS: [&[u8]; 10] = [
                    b"",
                    b"\0",
                    b"-1",
                    b"18446744073709551616",
                    b"1e999",
                    b"\xff\xfe",
                    b"=,;",
                    b"\"",
                    b"[[[[{{{{",
                    b"%00%",
                ];
                let word = WORDS[dice.random_range(0..WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
        }
        input.truncate(LONGEST);
    }
    input
}

#[test]
fn every_target_has_a_short_run() {
    let text = include_str!("short.rs");
    for (name, _) in fuzz::TARGETS {
        assert!(text.contains(&format!("short(\"{name}\")")), "{name}");
    }
}

#[test]
fn client_address() {
    short("client_address");
}

#[test]
fn filter_paths() {
    short("filter_paths");
}

#[test]
fn filters() {
    short("filters");
}

#[test]
fn proxy_protocol() {
    short("proxy_protocol");
}

#[test]
fn publication() {
    short("publication");
}

#[test]
fn schema() {
    short("schema");
}

#[test]
fn verification() {
    short("verification");
}
