//! Where something is to run: a node by its name, or any member with certain labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hello::{Labels, check_labels};
use crate::name::NodeName;

/// What goes before labels in the text form.
const LABEL: &str = "label:";

/// Where something is to run.
///
/// # Text form
///
/// A node's name, or `label:KEY=VALUE`, several of them with commas between: `label:zone=eu,disk=ssd`.
/// A value cannot have a comma then.
///
/// ```
/// use purlin_proto::Placement;
///
/// let eu: Placement = "label:zone=eu,disk=ssd".parse()?;
/// assert!(eu.fits(&[("zone", "eu"), ("disk", "ssd"), ("rack", "7")].map(|(k, v)| (k.into(), v.into())).into()));
/// assert_eq!("b".parse(), Ok(Placement::Node("b".into())));
/// # Ok::<(), purlin_proto::PlacementError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On this node.
    Node(NodeName),
    /// On a member that has all these labels.
    Labels(Labels),
}

/// Why a text is no placement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither a node's name nor label:KEY=VALUE: {detail}")]
pub struct PlacementError {
    text: String,
    detail: String,
}

impl Placement {
    /// On a member with this label.
    pub fn label(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Labels(Labels::from([(key.into(), value.into())]))
    }

    /// Whether the labels of a member are among those wanted; a node is not told by its labels.
    pub fn fits(&self, labels: &Labels) -> bool {
        match self {
            Self::Node(_) => false,
            Self::Labels(wanted) => {
                wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
            }
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "{name}"),
            Self::Labels(labels) => {
                let each: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "{LABEL}{}", each.join(","))
            }
        }
    }
}

impl FromStr for Placement {
    type Err = PlacementError;

    fn from_str(text: &str) -> Result<Self, PlacementError> {
        if text.starts_with(LABEL) {
            return labels(text).map(Self::Labels);
        }
        text.parse().map(Self::Node).map_err(|error| failed(text, format!("{error}")))
    }
}

fn failed(text: &str, detail: String) -> PlacementError {
    PlacementError { text: text.to_owned(), detail }
}

/// Labels as they are written.
pub(crate) fn labels(text: &str) -> Result<Labels, PlacementError> {
    let Some(labels) = text.strip_prefix(LABEL) else {
        return Err(failed(text, format!("it does not begin with {LABEL}")));
    };
    let mut wanted = Labels::new();
    for label in labels.split(',') {
        let (key, value) =
            label.split_once('=').ok_or_else(|| failed(text, format!("{label:?} has no =")))?;
        if wanted.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(failed(text, format!("{key:?} is there twice")));
        }
    }
    check_labels(&wanted).map_err(|detail| failed(text, detail))?;
    Ok(wanted)
}

impl From<NodeName> for Placement {
    fn from(node: NodeName) -> Self {
        Self::Node(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_reads_back_as_it_is_printed() {
        for text in ["b", "label:zone=eu", "label:disk=ssd,zone=eu", "label:zone="] {
            assert_eq!(text.parse::<Placement>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_placement_is_refused_with_the_reason() {
        let long = format!("label:zone={}", "x".repeat(1_000));
        for text in ["", "a b", "label:", "label:zone", "label:=eu", "label:a=1,a=2", &long] {
            let error = text.parse::<Placement>().expect_err(text).to_string();
            assert!(error.contains("label:KEY=VALUE"), "{error}");
        }
    }
}
