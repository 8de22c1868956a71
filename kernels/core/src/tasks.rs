//! A run as a grid of tasks, and how evenly threads share it.
//!
//! A grid is cut by the shape of the problem and never by the number of threads. So a thread may have more to do than another, and prices have to know: of
//! four tasks, the last of which has half the rows of the others, two threads do 4/7 and 3/7, and a third would not help.

use crate::Cut;

/// Tasks: the pieces of an array of that extent along these cuts, in row-major order. See [`BlockMut::for_each_piece`](crate::BlockMut::for_each_piece).
///
/// ```
/// use convolve_core::{Cut, Tasks};
/// let one = Cut { unit: 1, block: 1 };
/// let tasks = Tasks { extent: [1, 28, 64], cuts: [one, Cut { unit: 28, block: 8 }, Cut::whole(64)] };
/// assert_eq!((tasks.count(), tasks.busiest(2)), (4, 16.0 / 28.0));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tasks {
    /// Lengths of the axes.
    pub extent: [usize; 3],
    /// How each is cut.
    pub cuts: [Cut; 3],
}

/// More tasks are as good as even.
const FEW: usize = 24;
/// Most threads that are told apart.
const MOST: usize = 16;

impl Tasks {
    /// One axis, in tasks of `block`.
    /// ```
    /// let tasks = convolve_core::Tasks::line(10, 4);
    /// assert_eq!((tasks.count(), tasks.busiest(1), tasks.busiest(2)), (3, 1.0, 0.6));
    /// ```
    pub fn line(len: usize, block: usize) -> Self {
        let cut = Cut { unit: len.max(1), block: block.max(1) };
        Self { extent: [1, 1, len], cuts: [Cut::whole(1), Cut::whole(1), cut] }
    }

    /// How many.
    /// ```
    /// assert_eq!(convolve_core::Tasks::line(0, 4).count(), 0);
    /// ```
    pub fn count(&self) -> usize {
        self.pieces().iter().product()
    }

    fn pieces(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.cuts[axis].pieces(self.extent[axis]))
    }

    /// The part of all work that the busiest of some threads does, when each takes the next task as soon as it is free: 1 for one thread.
    /// ```
    /// let tasks = convolve_core::Tasks::line(7, 1);
    /// assert_eq!([1, 2, 7, 100].map(|threads| tasks.busiest(threads)), [1.0, 4.0 / 7.0, 1.0 / 7.0, 1.0 / 7.0]);
    /// ```
    pub fn busiest(&self, threads: usize) -> f64 {
        let pieces = self.pieces();
        let count: usize = pieces.iter().product();
        let threads = threads.min(count);
        if threads <= 1 {
            return 1.0;
        }
        let even = self.cuts.iter().all(|cut| cut.unit.is_multiple_of(cut.block) || cut.block > cut.unit);
        if even || count > FEW || threads > MOST {
            return count.div_ceil(threads) as f64 / count as f64;
        }
        let size = |axis: usize, index: usize| {
            let Cut { unit, block } = self.cuts[axis];
            let per_unit = unit.div_ceil(block);
            let last = index % per_unit == per_unit - 1;
            if last { unit - (per_unit - 1) * block } else { block }
        };
        let mut busy = [0usize; MOST];
        let busy = &mut busy[..threads];
        for a in 0..pieces[0] {
            for b in 0..pieces[1] {
                let outer = size(0, a).saturating_mul(size(1, b));
                for c in 0..pieces[2] {
                    let least = busy.iter_mut().min().expect("there are threads");
                    *least = least.saturating_add(outer.saturating_mul(size(2, c)));
                }
            }
        }
        let (most, sum) = busy.iter().fold((0, 0.0), |(most, sum), &one| (one.max(most), sum + one as f64));
        most as f64 / sum.max(1.0)
    }

    /// How much longer a run takes because threads wait for the busiest: the mean of one thread, where none waits (four parts of six), of two, and of
    /// four (one part each). What prices count that must not depend on how many there are. 1 where all share evenly, 5/3 where there is but one task.
    /// ```
    /// let tasks = |count| convolve_core::Tasks::line(count, 1).wait();
    /// assert_eq!((tasks(4), tasks(1)), (1.0, 5.0 / 3.0));
    /// ```
    pub fn wait(&self) -> f64 {
        (2.0 + self.busiest(2) + 2.0 * self.busiest(4)) / 3.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_takes_what_is_left_first() {
        let one = Cut { unit: 1, block: 1 };
        // Blocks of 56, 56 and 16 channels, twice.
        let tasks = Tasks { extent: [1, 128, 2], cuts: [one, Cut { unit: 128, block: 56 }, one] };
        assert_eq!((tasks.count(), tasks.busiest(2)), (6, 0.5));
        // Units that are cut on their own: 3 + 2, 3 + 2.
        let tasks = Tasks { extent: [1, 10, 1], cuts: [one, Cut { unit: 5, block: 3 }, one] };
        assert_eq!((tasks.count(), tasks.busiest(2), tasks.busiest(3)), (4, 0.5, 0.4));
    }

    #[test]
    fn a_block_beyond_the_axis_is_one_task() {
        let tasks = Tasks::line(5, 9);
        assert_eq!((tasks.count(), tasks.busiest(4)), (1, 1.0));
    }
}
