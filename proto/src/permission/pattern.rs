//! Texts with `*` for any characters.

use std::sync::Arc;

/// A pattern. Matching takes at most the product of both lengths, whatever is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Arc<str>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether the whole text is like this. When what follows a `*` does not fit, the last `*` takes
    /// one byte more; those before it need not be tried again. Bytes do for UTF-8, where no
    /// character is a part of another.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut read) = (0, 0);
        let mut star = None;
        while read < text.len() {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at, read));
                at += 1;
            } else if pattern.get(at) == Some(&text[read]) {
                at += 1;
                read += 1;
            } else if let Some((place, taken)) = star {
                star = Some((place, taken + 1));
                (at, read) = (place + 1, taken + 1);
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}
