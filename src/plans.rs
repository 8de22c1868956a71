//! Plans that are kept: the second request for the same problem costs a look-up.

use crate::registry::Registered;
use crate::{Plan, Planner};
use convolve_core::{Conv2d, Error, Pass};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Plans of one pass by problem, for networks whose shapes come at run time. Shared between threads by reference.
///
/// A plan is made at the first request, by the planner that was given, and kept until [`clear`](Self::clear): there is no limit. Where the planner
/// leaves threads to the current pool, pools of different sizes have plans of their own.
///
/// ```
/// use convolve::{Conv2d, Forward, PlanCache, Planner};
/// use std::sync::Arc;
/// let plans = PlanCache::<Forward>::new(Planner::new());
/// let conv = Conv2d::new(3, 8, 3).input(32);
/// let (first, second) = (plans.get(conv)?, plans.get(conv)?);
/// assert!(Arc::ptr_eq(&first, &second));
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Debug)]
pub struct PlanCache<P: Pass> {
    planner: Planner,
    plans: RwLock<Plans<P>>,
}

/// By problem and threads of the current pool.
type Plans<P> = HashMap<(Conv2d, usize), Arc<Plan<P>>>;

impl<P: Registered> PlanCache<P> {
    /// Nothing is planned yet.
    pub fn new(planner: Planner) -> Self {
        Self { planner, plans: RwLock::default() }
    }

    /// The plan for a problem.
    ///
    /// # Errors
    /// As [`Planner::plan`]; an error is not kept.
    pub fn get(&self, conv: Conv2d) -> Result<Arc<Plan<P>>, Error> {
        let key = (conv, self.planner.threads_now());
        if let Some(plan) = self.plans.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(plan));
        }
        // Planned outside of the lock: two threads may both plan, and one plan is kept.
        let plan = Arc::new(self.planner.plan::<P>(conv)?);
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(plans.entry(key).or_insert(plan)))
    }

    /// How many plans are kept.
    /// ```
    /// # use convolve::{Forward, PlanCache, Planner};
    /// assert_eq!(PlanCache::<Forward>::new(Planner::new()).len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is kept.
    /// ```
    /// # use convolve::{Forward, PlanCache, Planner};
    /// assert!(PlanCache::<Forward>::new(Planner::new()).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all plans; those that are in use live on.
    /// ```
    /// # use convolve::{Conv2d, Forward, PlanCache, Planner};
    /// let plans = PlanCache::<Forward>::new(Planner::new());
    /// plans.get(Conv2d::new(1, 1, 1).input(1))?;
    /// plans.clear();
    /// assert!(plans.is_empty());
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn clear(&self) {
        self.plans.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
