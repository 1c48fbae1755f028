//! What a completion says about where it belongs: an owner in the top byte, 56 bits of the owner's own below.

/// Who submitted an operation. The host of a ring hands each completion to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// Nobody waits for it: give-backs and cancellations.
    Nobody = 0,
    /// The network plane.
    Net = 1,
    /// Writes of the log.
    Disk = 2,
    /// The thread that writes groups.
    Writer = 3,
}

/// The `user_data` of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Bits that an owner may use.
    pub const PAYLOAD_BITS: u32 = 56;

    /// A token of `owner`. `payload` must fit in [`Token::PAYLOAD_BITS`].
    pub fn new(owner: Owner, payload: u64) -> Self {
        debug_assert!(payload >> Self::PAYLOAD_BITS == 0);
        Self((owner as u64) << Self::PAYLOAD_BITS | payload)
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As it goes into `user_data`.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// Who submitted the operation.
    pub fn owner(self) -> Owner {
        match self.0 >> Self::PAYLOAD_BITS {
            1 => Owner::Net,
            2 => Owner::Disk,
            3 => Owner::Writer,
            _ => Owner::Nobody,
        }
    }

    /// What the owner put in.
    pub fn payload(self) -> u64 {
        self.0 & ((1 << Self::PAYLOAD_BITS) - 1)
    }
}
