package result

// From where on noise is pointed out.
const (
	loudLoad  = 0.25 // load average per CPU before the run
	loudSteal = 0.01
	loudSpin  = 0.05
	loudApart = 0.02
	// tailSpin is from where on what single operations wait for is the machine.
	tailSpin = 0.2
)

// Busy says whether the machine, of so many CPUs, had other things to do before the run.
func (n *Noise) Busy(cpus int) bool { return n.LoadBefore/float64(max(cpus, 1)) > loudLoad }

// Robbed says whether the hypervisor took more time than does not matter.
func (n *Noise) Robbed() bool { return n.Stolen > loudSteal }

// Unsteady says whether the fixed piece of arithmetic varied by more than does not matter.
func (n *Noise) Unsteady() bool { return n.SpinSpread > loudSpin }

// Moved says whether the CPUs were farther apart than at best more often than does not matter.
func (n *Noise) Moved() bool { return n.Apart > loudApart }

// Disturbed says whether other things ran during the run, which medians bear, and the tails of latency do not.
func (n *Noise) Disturbed() bool { return n.SpinSpread > tailSpin || n.Robbed() || n.Moved() }
