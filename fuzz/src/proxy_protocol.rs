//! PROXY protocol: what is a whole head stays one whatever follows, and nothing shorter was.

use gateway::server::proxy_protocol::{MOST_BYTES, Parsed, parse};

pub fn run(data: &[u8]) {
    match parse(data) {
        Parsed::Head { bytes, sender } => {
            assert!(bytes <= data.len() && bytes <= MOST_BYTES);
            assert_eq!(parse(&data[..bytes]), Parsed::Head { bytes, sender });
            for shorter in [bytes - 1, bytes / 2] {
                assert_eq!(parse(&data[..shorter]), Parsed::Incomplete);
            }
        }
        Parsed::Incomplete => assert!(data.len() < MOST_BYTES, "a head without an end"),
        Parsed::Malformed => {}
    }
}
