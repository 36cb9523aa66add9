//! A token as somebody types it: what is one prints as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purlin::Token;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string(), text.trim());
    }
});
