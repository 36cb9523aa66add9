//! Large bytes that are not copied on their way.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::ops::Range;
use std::panic::catch_unwind;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use purlin_proto::codec::{self, Fit};
use purlin_proto::limits::FRAME_BYTES;
use purlin_proto::{
    Codec, Direct, DirectKind, Envelope, MessageName, Payload, Pieces, Signal, Target, zero_copy,
};
use serde::{Deserialize, Serialize};

/// Fewer bytes are copied.
const LEAST: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part(#[serde(with = "zero_copy")] Bytes);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Book {
    number: u64,
    parts: Vec<Part>,
    last: String,
}

fn book(sizes: &[usize]) -> Book {
    let part = |(index, size): (usize, &usize)| {
        Part(Bytes::from(vec![u8::try_from(index % 251).unwrap(); *size]))
    };
    let parts = sizes.iter().enumerate().map(part).collect();
    Book { number: 7, parts, last: "the end".to_owned() }
}

fn direct<'a, T>(to: &'a Target, value: &'a T) -> Direct<'a, T> {
    Direct { to, from: 3, what: DirectKind::Send("a.b"), value }
}

fn each(mut pieces: Pieces) -> Vec<Bytes> {
    std::iter::from_fn(|| (!pieces.is_empty()).then(|| pieces.take(usize::MAX))).collect()
}

fn lies_in(part: &Bytes, whole: &Bytes) -> bool {
    let (part, whole): (Range<_>, Range<_>) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

proptest! {
    /// Whatever is in it, the pieces are the frame, and what is decoded is what was encoded.
    #[test]
    fn the_pieces_are_the_frame(
        sizes in prop::collection::vec(
            prop_oneof![0_usize..100, LEAST - 2..LEAST + 2, 50_000_usize..200_000], 0..6,
        ),
        most in 1_usize..100_000,
    ) {
        let (to, value) = (Target::Serial(5), book(&sizes));
        let mut whole = BytesMut::new();
        direct(&to, &value).encode(&mut whole).unwrap();
        let mut pieces = direct(&to, &value).encode_pieces(100).unwrap();
        prop_assert_eq!(pieces.len(), whole.len());
        prop_assert_eq!(&pieces.clone().into_bytes(), &whole);
        let mut taken = BytesMut::new();
        while !pieces.is_empty() {
            let piece = pieces.take(most);
            prop_assert!((1..=most).contains(&piece.len()));
            taken.extend_from_slice(&piece);
        }
        prop_assert_eq!(&taken, &whole);

        let envelope = Envelope::decode(whole.freeze()).unwrap();
        let again = envelope.encode_pieces().unwrap();
        prop_assert_eq!(again.into_bytes(), taken.freeze());
        let Signal::Send { payload, .. } = envelope.signal else { panic!("it was sent") };
        prop_assert_eq!(payload.decode::<Book>().unwrap(), value);
    }
}

#[test]
fn large_bytes_are_pieces_and_small_ones_are_copied() {
    let (to, value) = (Target::Serial(5), book(&[LEAST, 10, 1 << 20, LEAST - 1]));
    let pieces = each(direct(&to, &value).encode_pieces(0).unwrap());
    assert_eq!(pieces.len(), 5, "around and between the two");
    assert_eq!(pieces[1].as_ptr(), value.parts[0].0.as_ptr());
    assert_eq!(pieces[3].as_ptr(), value.parts[2].0.as_ptr());
}

#[test]
fn the_payload_of_an_envelope_is_a_piece() {
    let payload = Payload { codec: Codec::Json, bytes: Bytes::from(vec![b'1'; 100_000]) };
    let message = MessageName::from_wire(Bytes::from_static(b"a.b")).unwrap();
    let signal = Signal::Send { message, payload: payload.clone(), waits: false };
    let pieces = each(Envelope { to: Target::Serial(5), from: 3, signal }.encode_pieces().unwrap());
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].as_ptr(), payload.bytes.as_ptr());
}

#[test]
fn what_is_decoded_is_a_part_of_the_frame_unless_the_frame_is_far_larger() {
    let payload = Payload::encode(Codec::Bincode, &book(&[400_000, 100_000, 900_000])).unwrap();
    let read: Book = payload.decode().unwrap();
    let shared: Vec<_> = read.parts.iter().map(|part| lies_in(&part.0, &payload.bytes)).collect();
    assert_eq!(shared, [true, false, true]);

    let read: Book = codec::from_bytes(&payload.bytes, FRAME_BYTES).unwrap();
    let shared = |part: &Part| lies_in(&part.0, &payload.bytes);
    assert!(!read.parts.iter().any(shared), "nobody has said whose bytes they are");
}

/// What is shared need not be copied, so it is not counted, and room is made for the rest only.
#[test]
fn the_size_of_a_large_frame_is_that_of_what_is_copied() {
    let to = Target::Serial(5);
    let mut out = BytesMut::from(&b"before"[..]);
    let fit = direct(&to, &book(&[1 << 20, 1 << 20])).encode_small(&mut out).unwrap();
    let Fit::TooLarge { at_least } = fit else { panic!("two megabytes are no small frame") };
    assert!(at_least < 200, "{at_least}");
    assert_eq!(&out[..], b"before");

    let value = book(&[FRAME_BYTES]);
    assert!(direct(&to, &value).encode_pieces(0).is_err(), "no frame is so large");
}

#[test]
fn in_json_they_are_numbers() {
    let payload = Payload::encode(Codec::Json, &book(&[3])).unwrap();
    assert_eq!(payload.bytes, r#"{"number":7,"parts":[[0,0,0]],"last":"the end"}"#);
    assert_eq!(payload.decode::<Book>().unwrap(), book(&[3]));
    let large = book(&[2 * LEAST]);
    let payload = Payload::encode(Codec::Json, &large).unwrap();
    assert_eq!(payload.decode::<Book>().unwrap(), large);
}

/// Reads bytes, and panics.
#[derive(Debug)]
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        zero_copy::deserialize(deserializer)?;
        panic!("in the user's code");
    }
}

#[test]
fn a_panic_while_decoding_leaves_nothing_behind() {
    let payload = Payload::encode(Codec::Bincode, &Part(Bytes::from(vec![7; 1 << 20]))).unwrap();
    catch_unwind(|| payload.decode::<Panics>()).unwrap_err();
    let read: Part = codec::from_bytes(&payload.bytes, FRAME_BYTES).unwrap();
    assert!(!lies_in(&read.0, &payload.bytes));
}
