//! Undo and redo of anything that can be compared.

/// The states before and after the present one.
#[derive(Clone, Debug, Default)]
pub struct History<T> {
    past: Vec<T>,
    future: Vec<T>,
}

impl<T: Clone + PartialEq> History<T> {
    /// Notes that `before` became `now`. Nothing happens if they are the same.
    pub fn record(&mut self, before: &T, now: &T) {
        /// More steps than anyone takes back.
        const DEPTH: usize = 1000;
        if before != now {
            self.past.push(before.clone());
            self.future.clear();
            let excess = self.past.len().saturating_sub(DEPTH);
            self.past.drain(..excess);
        }
    }

    /// Takes the last change of `now` back.
    pub fn undo(&mut self, now: &mut T) {
        Self::step(&mut self.past, &mut self.future, now);
    }

    /// Makes the change again that was taken back last.
    pub fn redo(&mut self, now: &mut T) {
        Self::step(&mut self.future, &mut self.past, now);
    }

    fn step(from: &mut Vec<T>, to: &mut Vec<T>, now: &mut T) {
        if let Some(other) = from.pop() {
            to.push(std::mem::replace(now, other));
        }
    }

    /// Whether there is something to take back.
    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether there is something to make again.
    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn changes_go_back_and_forth_and_a_new_one_ends_the_future() {
        let (mut history, mut now) = (History::default(), 0);
        for next in [1, 1, 2] {
            history.record(&now, &next);
            now = next;
        }
        history.undo(&mut now);
        assert_eq!(now, 1);
        history.undo(&mut now);
        assert_eq!((now, history.can_undo()), (0, false), "staying at 1 was no change");
        history.undo(&mut now);
        history.redo(&mut now);
        assert_eq!(now, 1);
        history.record(&now, &7);
        now = 7;
        assert!(!history.can_redo());
        history.undo(&mut now);
        assert_eq!(now, 1);
    }
}
