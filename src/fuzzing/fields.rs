//! Bytes as values.

use layerstore_schema::record::Time;

/// Bytes as the fields of a value; zeros when they are used up.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let (now, later) = self.0.split_at(count.min(self.0.len()));
        self.0 = later;
        now
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        for (to, from) in array.iter_mut().zip(self.take(N)) {
            *to = *from;
        }
        array
    }

    pub(super) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(super) fn half(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(super) fn hash(&mut self) -> [u8; 32] {
        self.array()
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte());
        self.take(count).to_vec()
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(super) fn pair(&mut self) -> (String, String) {
        (self.text(), self.text())
    }

    pub(super) fn time(&mut self) -> Time {
        Time { seconds: self.number().cast_signed(), nanoseconds: self.half() }
    }

    pub(super) fn option<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| one(self))
    }

    pub(super) fn list<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % 5).map(|_| one(self)).collect()
    }
}
