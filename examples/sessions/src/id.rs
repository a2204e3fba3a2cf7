//! The ids of sessions.

use std::fmt;
use std::str::FromStr;

/// The id of a session: 128 random bits, which no client can guess. Its text is hexadecimal.
///
/// It is a secret, so it has no `Debug`. A lookup by it takes a time that depends on its hash, which is seeded at random:
/// what a client could measure says nothing about other ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Makes a new id.
    ///
    /// # Errors
    ///
    /// If the operating system has no random numbers.
    pub fn random() -> Result<SessionId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(SessionId(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The text is not that of an id.
pub struct NotAnId;

impl FromStr for SessionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<SessionId, NotAnId> {
        if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotAnId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NotAnId)?;
        Ok(SessionId(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_its_text_convert_without_loss() {
        let (id, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        let text = id.to_string();
        assert!(text.parse::<SessionId>().is_ok_and(|parsed| parsed == id && parsed != other));
        for wrong in ["", "0", &text[1..], &text.replace(&text[..1], "+"), &format!("{text}0"), &"é".repeat(16)] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }
}
