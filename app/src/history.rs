//! Undo and redo of anything that can be compared.

#[derive(Clone, Debug, Default)]
pub struct History<T> {
    past: Vec<T>,
    future: Vec<T>,
}

impl<T: Clone + PartialEq> History<T> {
    /// Records a change, unless the states are equal.
    pub fn record(&mut self, old: &T, now: &T) {
        const DEPTH: usize = 1000;
        if old != now {
            self.past.push(old.clone());
            self.future.clear();
            let excess = self.past.len().saturating_sub(DEPTH);
            self.past.drain(..excess);
        }
    }

    pub fn undo(&mut self, now: &mut T) {
        Self::step(&mut self.past, &mut self.future, now);
    }

    pub fn redo(&mut self, now: &mut T) {
        Self::step(&mut self.future, &mut self.past, now);
    }

    fn step(from: &mut Vec<T>, to: &mut Vec<T>, now: &mut T) {
        if let Some(other) = from.pop() {
            to.push(std::mem::replace(now, other));
        }
    }

    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn changes_are_undone_and_redone_until_a_new_one() {
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
