//! A frame that the end of a receive buffer cut, put together from its pieces.
//!
//! Room is taken for what came, never for what was announced: it at most doubles with every piece, up to the announced
//! length.

use corelane_wire::FrameError;
use corelane_wire::frame::announced_len;

/// The start of a frame. Empty between frames.
#[derive(Default)]
pub(super) struct Assembly {
    bytes: Vec<u8>,
}

/// What a piece did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes of the piece belong to the frame, and it is whole.
    Whole(usize),
    /// All of the piece belongs to the frame, and more is to come.
    All,
}

impl Assembly {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of memory that it holds.
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn frame(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Adds what of `piece` belongs to the frame.
    pub(super) fn take(
        &mut self,
        piece: &[u8],
        max_frame_bytes: usize,
    ) -> Result<Taken, FrameError> {
        let mut used = 0;
        let announced = loop {
            match announced_len(&self.bytes, max_frame_bytes)? {
                Some(announced) => break announced,
                None if used == piece.len() => return Ok(Taken::All),
                // The length word itself may be cut.
                None => {
                    self.bytes.push(piece[used]);
                    used += 1;
                }
            }
        };
        let missing = announced - self.bytes.len();
        let rest = &piece[used..];
        let rest = &rest[..rest.len().min(missing)];
        let needed = self.bytes.len() + rest.len();
        if needed > self.bytes.capacity() {
            let room = announced.min(needed.max(self.bytes.capacity() * 2));
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(rest);
        if self.bytes.len() == announced {
            Ok(Taken::Whole(used + rest.len()))
        } else {
            Ok(Taken::All)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = ((len - 4) as u32).to_be_bytes().to_vec();
        frame.resize(len, 7);
        frame
    }

    #[test]
    fn pieces_of_every_size_make_the_frame() {
        let whole = frame(100);
        for size in 1..=100 {
            let mut assembly = Assembly::default();
            let mut stream = whole.clone();
            stream.extend([1, 2, 3]);
            let mut at = 0;
            loop {
                let piece = &stream[at..stream.len().min(at + size)];
                match assembly.take(piece, 1000).unwrap() {
                    Taken::All => at += piece.len(),
                    Taken::Whole(used) => break at += used,
                }
            }
            assert_eq!(assembly.frame(), whole);
            assert_eq!(at, 100);
        }
    }

    #[test]
    fn room_follows_what_came_and_not_what_was_announced() {
        let mut assembly = Assembly::default();
        let whole = frame(1 << 20);
        let mut came = 0;
        for piece in whole.chunks(1000) {
            assembly.take(piece, 2 << 20).unwrap();
            came += piece.len();
            assert!(
                assembly.room() <= (came * 2).max(1024),
                "{} for {came}",
                assembly.room()
            );
        }
        assert_eq!(assembly.room(), 1 << 20);
    }

    #[test]
    fn an_absurd_length_is_refused_with_its_fourth_byte() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(&[0x7f], 1000).unwrap(), Taken::All);
        assert_eq!(assembly.take(&[0xff, 0xff], 1000).unwrap(), Taken::All);
        assert!(matches!(
            assembly.take(&[0xff], 1000),
            Err(FrameError::Length(_))
        ));
    }
}
