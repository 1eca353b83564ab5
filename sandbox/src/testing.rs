//! Pools in tests, where the running binary is a test harness without a `main` of ours.
//!
//! The children are the same binary all the same: the harness is told to run one test, and that test becomes the child.
//! A crate that wants a pool in its unit tests writes `sandbox::child_for_tests!();` once, in a module, and gives the
//! name of the test that it makes to [`options`].

use crate::{Options, Program};

/// The variable that makes the test a child; without it the test does nothing and passes.
const ASKED: &str = "HOOKSTREAM_SANDBOX_TEST_CHILD";

/// Becomes the child if it was asked for.
pub fn child_if_asked() {
    if std::env::var_os(ASKED).is_some() {
        crate::child::main();
    }
}

/// Of a pool whose children run the test of this full name.
pub fn options(test: &'static str) -> Options {
    Options {
        program: Program {
            path: std::env::current_exe().expect("a test has a binary"),
            args: vec![
                test.to_owned(),
                "--exact".to_owned(),
                "--nocapture".to_owned(),
            ],
            env: vec![(ASKED.to_owned(), "1".to_owned())],
        },
        ..Options::default()
    }
}

/// Makes the test `sandbox_child` in this module.
#[macro_export]
macro_rules! child_for_tests {
    () => {
        #[test]
        fn sandbox_child() {
            $crate::testing::child_if_asked();
        }
    };
}
