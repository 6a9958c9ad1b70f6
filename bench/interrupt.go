package bench

import (
	"golang.org/x/sys/unix"

	"vfiouser/irq"
)

func interruptCases() []Case {
	return []Case{{Name: "irq/trigger", Quick: true, Limit: "eventfd-write", Setup: triggerSubject}}
}

func interruptLimits() []Limit {
	return []Limit{{Name: "eventfd-write", Setup: eventfdWriteSubject}}
}

// triggerSubject raises an MSI-X vector whose eventfd nobody reads.
func triggerSubject(env *Env) (Subject, error) {
	var config irq.Config
	config.Counts[irq.MSIX] = 1
	set := irq.NewSet(config)
	env.Cleanup(set.Close)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return Subject{}, err
	}
	if err := set.SetEventfds(irq.MSIX, 0, []int{fd}); err != nil {
		return Subject{}, err
	}
	vector := set.Vector(irq.MSIX, 0)
	return Subject{Run: func(n int) error {
		for range n {
			if err := vector.Trigger(); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func eventfdWriteSubject(env *Env) (Subject, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { unix.Close(fd) })
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	return Subject{Run: func(n int) error {
		for range n {
			if _, err := unix.Write(fd, one); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}
