//! The receivers of a frame that is for several processes of one node.
//!
//! Sorted, and written as the differences of each serial to the one before: processes that were
//! started together are told of with one or two bytes each. In memory they stay as they are on the
//! wire, a slice of the frame, and are read as they are gone through: so a list costs its reader no
//! memory, whatever it claims. The layout is in `PROTOCOL.md`.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::DecodeError;
use crate::limits::RECEIVERS;

/// The serials of 1 to [`RECEIVERS`] processes of one node, sorted. One may be there several times:
/// then it is told as often.
///
/// ```
/// use purlin_proto::Serials;
///
/// let lists = Serials::split(vec![300, 7, 301], usize::MAX);
/// assert_eq!(lists[0].iter().collect::<Vec<_>>(), [7, 300, 301]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serials {
    count: u32,
    /// Checked when made: so many differences, whose sums are serials.
    differences: Bytes,
}

/// Most bytes of one difference.
pub(crate) const DIFFERENCE_BYTES: usize = 10;

/// Bytes before the differences.
const COUNT_BYTES: usize = 4;

impl Serials {
    /// Lists of at most `most` each, and of at most [`RECEIVERS`]; none if there are no serials.
    pub fn split(mut serials: Vec<u64>, most: usize) -> Vec<Self> {
        serials.sort_unstable();
        serials.chunks(most.clamp(1, RECEIVERS)).map(Self::of_sorted).collect()
    }

    fn of_sorted(serials: &[u64]) -> Self {
        let count = u32::try_from(serials.len()).expect("RECEIVERS fits");
        let mut differences = BytesMut::with_capacity(2 * serials.len() + DIFFERENCE_BYTES);
        let mut last = 0;
        for &serial in serials {
            put_varint(serial - last, &mut differences);
            last = serial;
        }
        Self { count, differences: differences.freeze() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// There is always one at least.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The serials, the smallest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut rest = &self.differences[..];
        let mut last = 0;
        (0..self.count).map(move |_| {
            last += take_varint(&mut rest).expect("checked when made");
            last
        })
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.reserve(COUNT_BYTES + self.differences.len());
        out.put_u32_le(self.count);
        out.put_slice(&self.differences);
    }

    /// Reads a list from the beginning of a frame; what follows it is left there.
    pub(crate) fn take(frame: &mut Bytes) -> Result<Self, DecodeError> {
        let mut rest = &frame[..];
        let count = rest.try_get_u32_le().map_err(|_| ends_too_early())?;
        if count == 0 || count as usize > RECEIVERS {
            return Err(DecodeError::malformed(format_args!("{count} receivers")));
        }
        let mut last = 0_u64;
        for _ in 0..count {
            let overflow = || DecodeError::malformed("a serial beyond 64 bits");
            last = last.checked_add(take_varint(&mut rest)?).ok_or_else(overflow)?;
        }
        let bytes = frame.len() - rest.len();
        let differences = frame.split_to(bytes).slice(COUNT_BYTES..);
        Ok(Self { count, differences })
    }
}

impl fmt::Debug for Serials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Seven bits a byte, the lowest first; a set high bit says that another follows.
fn put_varint(mut value: u64, out: &mut BytesMut) {
    loop {
        let bits = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(bits);
        }
        out.put_u8(bits | 0x80);
    }
}

/// Only the shortest form is one, so that a list has one form.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| ends_too_early())?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                break;
            }
            return Ok(value);
        }
    }
    Err(DecodeError::malformed("not a difference of serials"))
}

fn ends_too_early() -> DecodeError {
    DecodeError::malformed("the frame ends too early")
}
