//! Join tokens: how a node or client of another machine, or another user, gets its certificate.
//!
//! A token is made from a data directory that holds the authority's key ([`store`]), and typed where
//! somebody is to join ([`joining`]). It names the authority, so that the first contact cannot be
//! intercepted, and proves that its bearer was invited. Whichever member is dialed takes the request;
//! if the token was not made from its own directory it finds the member whose it was, and that one
//! signs ([`desk`]).
//!
//! What is not here: certificates that were given out are not taken back by revoking the token.

pub(crate) mod desk;
pub(crate) mod joining;
pub(crate) mod store;
mod token;

pub use joining::JoinError;
pub use store::TokensError;
pub use token::{Token, TokenError};
