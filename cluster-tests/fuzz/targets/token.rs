//! Join tokens as they are typed: any text is refused or is a token that prints as that text; and
//! whatever is in a token, its text is read again, and no other text that is like it.
#![no_main]

use std::fmt::Write;

use data_encoding::BASE64URL_NOPAD;
use libfuzzer_sys::fuzz_target;
use purlin::Token;
use aws_lc_rs::digest::{SHA256, digest};

/// A token with these bytes, as `PROTOCOL.md` says.
fn text(role: &str, bytes: &[u8; 56]) -> String {
    let prefix = format!("purlin-{role}-");
    let sum = digest(&SHA256, &[prefix.as_bytes(), bytes].concat());
    let all = [&bytes[..], &sum.as_ref()[..4]].concat();
    prefix + &BASE64URL_NOPAD.encode(&all)
}

fuzz_target!(|input: &[u8]| {
    if let Ok(typed) = std::str::from_utf8(input)
        && let Ok(token) = typed.parse::<Token>()
    {
        assert_eq!(token.to_string(), typed.trim());
        let mut shown = String::new();
        write!(shown, "{token:?}").expect("a String takes it");
        assert!(!shown.contains(&token.to_string()), "the secret is hidden");
    }
    let [role, at, other, bytes @ ..] = input else { return };
    let Some(bytes) = bytes.first_chunk::<56>() else { return };
    let role = ["node", "client", "operator"][usize::from(role % 3)];
    let good = text(role, bytes);
    let token: Token = good.parse().expect("a token");
    assert_eq!(token.to_string(), good);
    assert_eq!(format!("{:?}", token.role()).to_lowercase(), role);
    // A typo is one.
    let mut typo = good.clone().into_bytes();
    let at = usize::from(*at) % typo.len();
    if typo[at] != *other {
        typo[at] = *other;
        let Ok(typo) = String::from_utf8(typo) else { return };
        if let Ok(taken) = typo.parse::<Token>() {
            // One in 2^32 has the same checksum.
            assert_eq!(taken.to_string(), typo.trim());
        }
    }
});
