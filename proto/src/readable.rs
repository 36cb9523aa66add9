//! Two forms of one value: its text where people read (JSON), its fields where they do not.

/// Serializes a type as its text form (`Display`, `FromStr`) in human-readable formats, and as the
/// `$wire` shadow of it, which has the same fields, in all others.
macro_rules! text_when_readable {
    ($type:ty, $wire:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    <$wire>::from(self.clone()).serialize(serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <$wire>::deserialize(deserializer).map(Self::from)
                }
            }
        }
    };
}

pub(crate) use text_when_readable;
