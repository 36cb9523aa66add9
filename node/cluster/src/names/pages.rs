//! All names of a member, as it tells them: page by page, and no more than a node may have.

use purlin_proto::admin::names::{Claim, NAMES_PAGE};
use purlin_proto::limits::OWNED_ENTRIES;
use purlin_proto::{Fence, Name};

/// What a member has told so far.
#[derive(Debug, Default)]
pub struct Pages(Vec<(Name, Claim, Fence)>);

/// No member that keeps to the rules tells this: a page that is too long, names that do not rise from
/// one to the next, or more than a node may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what it tells is not a list of its names")]
pub struct NoNames;

impl Pages {
    /// Adds the next page; behind which name the one after it begins, if there is one.
    ///
    /// # Errors
    ///
    /// Nothing of this page is kept then.
    pub fn add(&mut self, page: Vec<(Name, Claim, Fence)>) -> Result<Option<Name>, NoNames> {
        let before = self.0.last().into_iter();
        let rises = before.chain(&page).is_sorted_by(|(one, ..), (next, ..)| one < next);
        if !rises || page.len() > NAMES_PAGE || self.0.len() + page.len() > OWNED_ENTRIES {
            return Err(NoNames);
        }
        let full = page.len() == NAMES_PAGE;
        self.0.extend(page);
        Ok(self.0.last().filter(|_| full).map(|(name, ..)| name.clone()))
    }

    /// All of them.
    pub fn into_names(self) -> Vec<(Name, Claim, Fence)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use purlin_proto::NodeId;

    use super::*;

    fn page(numbers: std::ops::Range<usize>) -> Vec<(Name, Claim, Fence)> {
        let claim = Claim { pid: NodeId::new("a".into(), 1).pid(1), attempt: 1 };
        let fence = Fence { epoch: 1, shard: 1, generation: 1 };
        let name = |number| format!("{number:09}").parse().expect("a name");
        numbers.map(|number| (name(number), claim, fence)).collect()
    }

    #[test]
    fn a_page_that_is_full_is_followed_by_another() {
        let mut pages = Pages::default();
        let behind = pages.add(page(0..NAMES_PAGE)).expect("a page");
        assert_eq!(behind, page(0..NAMES_PAGE).pop().map(|(name, ..)| name));
        assert_eq!(pages.add(page(NAMES_PAGE..NAMES_PAGE + 3)), Ok(None));
        assert_eq!(pages.into_names().len(), NAMES_PAGE + 3);
    }

    #[test]
    fn who_tells_the_same_again_or_without_end_is_not_listened_to() {
        let mut pages = Pages::default();
        assert_eq!(pages.add(page(0..NAMES_PAGE + 1)), Err(NoNames));
        assert_eq!(pages.add(page(3..5).into_iter().rev().collect()), Err(NoNames));
        let mut told = 0;
        while pages.add(page(told..told + NAMES_PAGE)).is_ok() {
            assert_eq!(pages.add(page(told..told + NAMES_PAGE)), Err(NoNames));
            told += NAMES_PAGE;
        }
        assert_eq!(told, OWNED_ENTRIES);
    }
}
