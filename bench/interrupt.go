package bench

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/irq"
)

// interruptCases raise an MSI-X vector whose eventfd nobody reads: one that fires, one that is
// masked and becomes pending, and one that fires because it is unmasked.
func interruptCases() []Case {
	return []Case{
		{Name: "irq/trigger", Quick: true, Limit: "eventfd-write", Setup: triggerSubject},
		{Name: "irq/trigger/masked", Quick: true, Limit: "atomic-or", Setup: func(env *Env) (Subject, error) {
			set, vector, err := newVector(env)
			if err != nil {
				return Subject{}, err
			}
			if err := set.Mask(irq.MSIX, 0, 1, nil); err != nil {
				return Subject{}, err
			}
			return Subject{Run: func(n int) error { return trigger(vector, n) }}, nil
		}},
		{Name: "irq/mask-trigger-unmask", Limit: "eventfd-write", Setup: func(env *Env) (Subject, error) {
			set, vector, err := newVector(env)
			if err != nil {
				return Subject{}, err
			}
			return Subject{Run: func(n int) error {
				for range n {
					if err := set.Mask(irq.MSIX, 0, 1, nil); err != nil {
						return err
					}
					if err := vector.Trigger(); err != nil {
						return err
					}
					if err := set.Unmask(irq.MSIX, 0, 1, nil); err != nil {
						return err
					}
				}
				return nil
			}}, nil
		}},
	}
}

func triggerSubject(env *Env) (Subject, error) {
	_, vector, err := newVector(env)
	if err != nil {
		return Subject{}, err
	}
	return Subject{Run: func(n int) error { return trigger(vector, n) }}, nil
}

func trigger(vector *irq.Vector, n int) error {
	for range n {
		if err := vector.Trigger(); err != nil {
			return err
		}
	}
	return nil
}

// newVector is a vector of a set of its own with an eventfd.
func newVector(env *Env) (*irq.Set, *irq.Vector, error) {
	var config irq.Config
	config.Counts[irq.MSIX] = 1
	set := irq.NewSet(config)
	env.Cleanup(set.Close)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	if err := set.SetEventfds(irq.MSIX, 0, []int{fd}); err != nil {
		return nil, nil, err
	}
	return set, set.Vector(irq.MSIX, 0), nil
}

func interruptLimits() []Limit {
	return []Limit{
		{Name: "eventfd-write", Setup: func(env *Env) (Subject, error) {
			fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
			if err != nil {
				return Subject{}, err
			}
			env.Cleanup(func() { unix.Close(fd) })
			one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
			return Subject{Run: func(n int) error {
				for range n {
					if _, e := rawWrite(fd, one); e != 0 { // (it cannot block)
						return e
					}
				}
				return nil
			}}, nil
		}},
		{Name: "atomic-or", Setup: func(*Env) (Subject, error) {
			pending := new(atomic.Uint32)
			return Subject{Run: func(n int) error {
				for range n {
					pending.Or(1)
				}
				return nil
			}}, nil
		}},
	}
}
