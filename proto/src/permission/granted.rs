//! What clients may do by the config of the node that they are connected to, whatever their
//! certificates say.

use std::sync::Arc;

use crate::name::{NameError, NodeName};

use super::pattern::Pattern;
use super::{Permission, Permissions, node};

/// Permissions by patterns of client names, as an operator has written them down for a node.
///
/// If a client's name is like one of the patterns, or several, it may do what they say together, and
/// what its certificate says does not count; so a node's config has the last word on its clients, to
/// give and to take. If it is like none, the certificate counts alone.
///
/// ```
/// use purlin_proto::{GrantedPermissions, Permissions};
///
/// let mut granted = GrantedPermissions::default();
/// granted.add("shop-*", Permissions::new(vec!["call:hits".parse()?, "read".parse()?])?)?;
/// granted.add("*-old", Permissions::default())?;
/// assert_eq!(granted.of("shop-1".into()).unwrap().iter().count(), 2);
/// assert!(granted.of("bank-old".into()).unwrap().is_empty());
/// assert_eq!(granted.of("bank".into()), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantedPermissions(Arc<Vec<(Pattern, Permissions)>>);

impl GrantedPermissions {
    /// Clients whose names are like this, with `*` for any characters, may do this as well.
    ///
    /// An error, after which all is as before, says why no client's name can be like it.
    pub fn add(&mut self, clients: &str, may: Permissions) -> Result<(), NameError> {
        let clients = node(clients)?;
        Arc::make_mut(&mut self.0).push((clients, may));
        Ok(())
    }

    /// What a client may do; `None` if it is for its certificate to say.
    pub fn of(&self, client: NodeName) -> Option<Permissions> {
        let found = self.0.iter().filter(|(clients, _)| clients.matches(client.as_str()));
        let mut found = found.map(|(_, may)| may).peekable();
        found.peek()?;
        let known: Vec<Permission> = found.flat_map(Permissions::iter).cloned().collect();
        Some(Permissions { known: known.into(), partial: false })
    }

    /// Whether nothing is said of any client.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
