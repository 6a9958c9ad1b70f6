package measure

import (
	"context"
	"time"

	"vfiouser/bench/machine"
)

const (
	// farther is what is not near: a distance of more than so many times the least. Between the threads of a core it is
	// half of that between cores that share a cache, and a tenth of that between others.
	farther = 3
	// firstLooks are how often distance is measured to find the least, and looks while that is waited for.
	firstLooks = 10
	looks      = 25
	// pause is the time between two of them. Hypervisors move a CPU for tenths of a second, and more.
	pause = 20 * time.Millisecond
	// repeats are how often a measurement is taken once more because the CPUs came apart.
	repeats = 3
	// allowance is how often it may be waited, and measured once more, for each measurement that counts, on
	// average: CPUs that are hardly ever near must not hold a run up.
	allowance = 1
)

// distance is that between the CPUs of driver and device. A hypervisor that moves virtual CPUs changes it,
// and with it, threefold and more, the time of all that is handed from one to the other. So what is
// measured is measured while they are as near as they come.
type distance struct {
	measure func() time.Duration // 0: unknown
	sleep   func(context.Context, time.Duration)

	least time.Duration
	spent int       // waits and measurements in vain
	seen  []float64 // ns, after each measurement that counts
	apart int       // measurements that count although the CPUs were apart
}

// newDistance finds the least one of two CPUs; -1, -1: there is one only.
func newDistance(ctx context.Context, driver, device int) *distance {
	d := &distance{measure: func() time.Duration { return 0 }, sleep: sleep}
	if driver >= 0 && device >= 0 {
		d.measure = func() time.Duration { return machine.Distance(driver, device) }
	}
	d.find(ctx)
	return d
}

// find looks for the least one for a while.
func (d *distance) find(ctx context.Context) {
	for range firstLooks {
		if d.look() == 0 {
			break // it is unknown
		}
		d.sleep(ctx, pause)
	}
}

func (d *distance) look() time.Duration {
	now := d.measure()
	if d.least == 0 || now < d.least {
		d.least = now
	}
	return now
}

// spend says whether there is something left to wait, or to measure once more.
func (d *distance) spend() bool {
	if d.spent >= looks+allowance*len(d.seen) {
		return false
	}
	d.spent++
	return true
}

func (d *distance) near(now time.Duration) bool {
	return float64(now) <= farther*float64(d.least)
}

// steady has take measure something while the CPUs are near, as far as that can be had, and calls
// keep with what it gave.
func steady[T any](ctx context.Context, d *distance, take func() (T, error), keep func(T)) error {
	for try := 0; ; try++ {
		for range looks {
			if d.near(d.look()) || ctx.Err() != nil || !d.spend() {
				break
			}
			d.sleep(ctx, pause)
		}
		taken, err := take()
		if err != nil {
			return err
		}
		now := d.look()
		if near := d.near(now); near || try == repeats || ctx.Err() != nil || !d.spend() {
			keep(taken)
			d.seen = append(d.seen, float64(now))
			if !near {
				d.apart++
			}
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
