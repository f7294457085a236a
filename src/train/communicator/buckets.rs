//! Sums of a step's gradients over all ranks, begun during the backward pass.

use super::Communicator;
use crate::Result;
use crate::device::Tensor;

/// Numbers in a bucket: enough that a message is worth sending, few enough that the first leaves
/// early.
const NUMBERS: usize = 1 << 20;
/// Every rank sends each other a part of a bucket; numbers in such a part, at least.
const PART: usize = 1 << 13;

/// Puts in each place the sum of what all ranks have there.
pub(crate) fn sum(communicator: &Communicator, places: &mut [Option<Tensor>]) -> Result<()> {
    let mut buckets = Buckets::new(communicator);
    for (slot, gradient) in places.iter().enumerate() {
        gradient.as_ref().map_or(Ok(()), |gradient| buckets.give(slot, gradient))?;
    }
    buckets.finish(places)
}

/// Gradients on their way. They are laid end to end in the order they are given, which must be the
/// same on all ranks, and leave whenever there are enough for a bucket.
pub(crate) struct Buckets<'a> {
    communicator: &'a Communicator,
    size: usize,
    /// Given, but not read back from the device yet: reading waits for it.
    unread: Vec<Tensor>,
    open: Vec<f32>,
    /// Slots, in the order they were given.
    given: Vec<usize>,
    started: usize,
}

impl<'a> Buckets<'a> {
    pub(crate) fn new(communicator: &'a Communicator) -> Self {
        let size = NUMBERS.max(PART * communicator.size());
        Self { communicator, size, unread: Vec::new(), open: Vec::new(), given: Vec::new(), started: 0 }
    }

    /// Takes over a gradient whose sum goes to `slot`.
    pub(crate) fn give(&mut self, slot: usize, gradient: &Tensor) -> Result<()> {
        if self.communicator.size() == 1 {
            return Ok(());
        }
        self.given.push(slot);
        self.unread.push(gradient.clone());
        let numbers: usize = self.unread.iter().map(Tensor::len).sum();
        if self.open.len() + numbers >= self.size { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> Result<()> {
        for gradient in std::mem::take(&mut self.unread) {
            match gradient.gpu() {
                None => self.append(gradient.as_slice()?)?,
                Some(_) => self.append(&gradient.read()?)?,
            }
        }
        Ok(())
    }

    fn append(&mut self, mut numbers: &[f32]) -> Result<()> {
        while !numbers.is_empty() {
            let (now, later) = numbers.split_at(numbers.len().min(self.size - self.open.len()));
            self.open.extend_from_slice(now);
            numbers = later;
            if self.open.len() == self.size {
                self.leave()?;
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let next = Vec::with_capacity(self.size);
        self.started += 1;
        self.communicator.start_sum(std::mem::replace(&mut self.open, next))
    }

    /// Waits for the sums and puts each in its slot.
    pub(crate) fn finish(mut self, slots: &mut [Option<Tensor>]) -> Result<()> {
        self.read()?;
        if !self.open.is_empty() {
            self.leave()?;
        }
        let mut arrived = Vec::new();
        for slot in self.given {
            let Some(gradient) = slots[slot].as_mut() else { continue };
            while arrived.len() < gradient.len() {
                arrived.extend(self.communicator.finish_sum()?);
            }
            let rest = arrived.split_off(gradient.len());
            gradient.write(&arrived)?;
            arrived = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::Transport;
    use super::*;
    use crate::device::Device;

    /// The first of two ranks that always have the same, and how long the buckets were.
    #[derive(Default)]
    struct Twin {
        sums: Mutex<VecDeque<Vec<f32>>>,
        lengths: Mutex<Vec<usize>>,
    }

    impl Transport for Twin {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            2
        }
        fn start_sum(&self, numbers: Vec<f32>) -> Result<()> {
            self.lengths.lock().unwrap().push(numbers.len());
            self.sums.lock().unwrap().push_back(numbers.iter().map(|x| x + x).collect());
            Ok(())
        }
        fn finish_sum(&self) -> Result<Vec<f32>> {
            Ok(self.sums.lock().unwrap().pop_front().unwrap())
        }
        fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![own.to_vec(), own.to_vec()])
        }
        fn busy(&self) -> Duration {
            Duration::ZERO
        }
        fn abort(&self) {}
    }

    #[test]
    fn every_number_comes_back_to_its_place() {
        let device = Device::cpu();
        for size in [1, 2, 5, 7, 100] {
            let twin = Arc::new(Twin::default());
            let communicator = Communicator::new(twin.clone());
            let mut buckets = Buckets { size, ..Buckets::new(&communicator) };
            let numbers =
                |slot: usize| -> Vec<f32> { (0..[6, 1, 9, 3][slot]).map(|i| (100 * slot + i) as f32).collect() };
            let mut slots: Vec<_> = (0..5)
                .map(|slot| (slot < 4).then(|| device.upload("g", &[numbers(slot).len()], &numbers(slot)).unwrap()))
                .collect();
            // Not in the order of the slots, and one of them stays unchanged.
            for slot in [2, 0, 3] {
                buckets.give(slot, slots[slot].as_ref().unwrap()).unwrap();
            }
            buckets.finish(&mut slots).unwrap();
            for (slot, sum) in slots.iter().flatten().enumerate() {
                let factor = if slot == 1 { 1.0 } else { 2.0 };
                let want: Vec<f32> = numbers(slot).iter().map(|x| factor * x).collect();
                assert_eq!(sum.read().unwrap(), want, "slot {slot}, buckets of {size}");
            }
            let lengths = twin.lengths.lock().unwrap();
            assert_eq!(lengths.iter().sum::<usize>(), 18);
            assert!(lengths.iter().rev().skip(1).all(|&length| length == size), "{lengths:?}");
        }
    }
}
