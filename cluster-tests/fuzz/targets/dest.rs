//! What can be typed as a destination, a group, a key, a pid or a placement: what is one prints as
//! something that is read the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use purlin_proto::{Dest, Group, Key, Name, NodeId, NodeName, Pid, Placement};

fn twice<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let printed = value.to_string();
    assert_eq!(printed.parse::<T>().ok(), Some(value), "{printed:?}");
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    twice::<Dest>(text);
    twice::<Group>(text);
    twice::<Key>(text);
    twice::<Name>(text);
    twice::<NodeId>(text);
    twice::<NodeName>(text);
    twice::<Pid>(text);
    twice::<Placement>(text);
});
