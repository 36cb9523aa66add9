//! Certificates that are soon over.

use std::time::Duration;

/// How long before it expires a certificate is warned of.
pub(crate) const WARN: Duration = Duration::from_hours(30 * 24);
