//! Record, publish, mark.

use crate::ports::Receipt;

/// Proof that everything a message names was stored and alerted. Only this module can make one.
#[derive(Debug)]
pub struct Delivered {
    message_id: String,
    receipt: Receipt,
}

impl Delivered {
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}
