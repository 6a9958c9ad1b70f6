package nvme

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"vfiouser/block"
)

// SubsystemConfig describes an NVM subsystem. The zero value has no namespace.
type SubsystemConfig struct {
	// Serial identifies the subsystem; its NQN and the identifiers of its namespaces
	// follow from it, so a drive that is to keep its name across restarts needs one.
	// Up to 20 printable ASCII characters; empty means a random one.
	Serial string
	// Model has up to 40, Firmware up to 8 characters. There are defaults.
	Model, Firmware string
	// Namespaces are the namespaces 1 to N, attached to every controller.
	Namespaces []Namespace
	// Pool is the storage of the namespaces that hosts create with Namespace Management.
	// The subsystem owns it. Without a pool they can create none.
	Pool block.Pool
	// StateDir is the directory for what has to outlive the process, such as saved features.
	// It is made if it does not exist, and belongs to this subsystem alone. Empty: nothing
	// outlives the process.
	StateDir string
	// Logger is told of failures to write there; nil means slog.Default.
	Logger *slog.Logger
}

// Limits of a subsystem.
const (
	MaxControllers = 8
	MaxNamespaces  = 1024
)

// Subsystem is an NVM subsystem (Base 2.0, 1.5.59): namespaces, and the controllers that
// they are attached to. All methods may be called from any goroutine.
type Subsystem struct {
	cfg   SubsystemConfig
	state stateDir

	uncorrectable uncorrectable
	firmware      firmware
	journal       journal
	reservations  reservations
	keeping       sync.Mutex // of keepNow
	crowd         crowd
	chores        chores
	selfTest      selfTest
	sanitize      sanitize
	protected     map[uint32]uint32 // namespaces, when the subsystem was made

	// mu is held while namespaces are made, changed, attached and removed. What it waits
	// for does not need the control goroutine of any host.
	mu          sync.Mutex
	namespaces  [MaxNamespaces]*namespace // allocated, by number less one
	generations map[uint32]uint32         // of the numbers: how many namespaces have had them before
	controllers [MaxControllers]*Controller
	closed      bool

	// live is under a lock of its own, which is held for a few instructions.
	live struct {
		sync.Mutex
		hosts  map[*host]struct{}
		groups map[*group]struct{}
	}
}

// NewSubsystem makes a subsystem without controllers. It owns the backends and the pool if
// there is no error. Close it after its controllers.
func NewSubsystem(cfg SubsystemConfig) (_ *Subsystem, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Subsystem{cfg: cfg, generations: make(map[uint32]uint32)}
	if cfg.StateDir != "" {
		if err := s.state.open(cfg.StateDir); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, s.state.close())
			}
		}()
	}
	if err := s.recallSerial(); err != nil {
		return nil, err
	}
	s.chores.init(cfg.Logger)
	if err := s.recallRecords(); err != nil {
		return nil, err
	}
	s.live.hosts = make(map[*host]struct{})
	s.live.groups = make(map[*group]struct{})
	for i, n := range cfg.Namespaces {
		ns, err := s.newNamespace(uint32(i+1), n)
		if err != nil {
			return nil, err
		}
		ns.everywhere, ns.configured = true, true
		s.namespaces[i] = ns
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeVolumes())
		}
	}()
	if err := s.recallLayout(); err != nil {
		return nil, err
	}
	if err := s.recallReservations(); err != nil {
		return nil, err
	}
	return s, nil
}

// closeVolumes closes what was opened in the pool, which the caller of NewSubsystem cannot.
func (s *Subsystem) closeVolumes() error {
	var errs []error
	for _, ns := range s.namespaces {
		if ns != nil && ns.volume != "" {
			errs = append(errs, ns.backend.Close())
		}
	}
	return errors.Join(errs...)
}

func (c *SubsystemConfig) complete() error {
	orDefault(&c.Model, defaultModel)
	orDefault(&c.Firmware, defaultFW)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if len(c.Namespaces) > MaxNamespaces {
		return configError("%d namespaces, at most %d", len(c.Namespaces), MaxNamespaces)
	}
	return c.checkNames()
}

func (c *SubsystemConfig) checkNames() error {
	for _, t := range []struct {
		name, text string
		max        int
	}{{"serial number", c.Serial, 20}, {"model", c.Model, 40}, {"firmware revision", c.Firmware, 8}} {
		if err := checkText(t.name, t.text, t.max); err != nil {
			return err
		}
	}
	return nil
}

// serialRecord is kept of a subsystem whose serial number nobody gave.
type serialRecord struct{ Serial string }

// recallSerial makes a serial number up if there is none, or takes the one that was made up
// earlier.
func (s *Subsystem) recallSerial() error {
	if s.cfg.Serial != "" {
		return nil
	}
	r := serialRecord{randomSerial()}
	found, err := s.state.recall("serial", &r)
	if err == nil && found && (r.Serial == "" || checkText("serial number", r.Serial, 20) != nil) {
		err = fmt.Errorf("nvme: state: impossible serial number %q", r.Serial)
	}
	if err == nil && !found {
		err = s.state.keep("serial", r)
	}
	s.cfg.Serial = r.Serial
	return err
}

// keep writes a subject to the state directory. A failure is logged, as no host can be told.
func (s *Subsystem) keep(subject string, v any) {
	if err := s.state.keep(subject, v); err != nil {
		s.cfg.Logger.Error("state was not written", "subject", subject, "err", err)
	}
}

// Close closes the backends. Close the controllers before. It is idempotent.
func (s *Subsystem) Close() error {
	s.chores.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, ns := range s.namespaces {
		if ns != nil {
			errs = append(errs, ns.backend.Close())
		}
	}
	if s.cfg.Pool != nil {
		errs = append(errs, s.cfg.Pool.Close())
	}
	errs = append(errs, s.state.close())
	return errors.Join(errs...)
}

// join takes a controller in, with the first identifier that is free.
func (s *Subsystem) join(c *Controller) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for i := range s.controllers {
		if s.controllers[i] != nil {
			continue
		}
		s.controllers[i] = c
		c.index = i
		s.associate(c, association{c: c})
		for _, ns := range s.namespaces {
			if ns != nil && (ns.everywhere || ns.wanted&c.bit() != 0) {
				ns.attached |= c.bit()
			}
		}
		c.publish()
		return nil
	}
	return configError("the subsystem has %d controllers already", MaxControllers)
}

// part lets a controller go.
func (s *Subsystem) part(c *Controller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.controllers[c.index] = nil
	s.associate(c, association{})
	for _, ns := range s.namespaces {
		if ns != nil {
			ns.attached &^= c.bit()
		}
	}
}

// names are the serial number, the model and the firmware revision. They may change, as a
// state that arrives brings its own.
func (s *Subsystem) names() (serial, model, firmware string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Serial, s.cfg.Model, s.firmware.running()
}

// several says whether there is more than one controller.
func (s *Subsystem) several() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.controllers {
		if c != nil {
			n++
		}
	}
	return n > 1
}

// id is the controller identifier (CNTLID).
func (c *Controller) id() uint16 { return uint16(c.index + 1) }

func (c *Controller) bit() uint8 { return 1 << c.index }

// publish makes the table of the namespaces that are attached to c anew. The caller holds
// the subsystem's mu.
func (c *Controller) publish() {
	var table []*namespace
	for i, ns := range c.subsystem.namespaces {
		if ns != nil && ns.attached&c.bit() != 0 {
			table = append(table, make([]*namespace, i-len(table))...)
			table = append(table, ns)
		}
	}
	c.table.Store(&table)
}

// publish makes the tables of all controllers anew. The caller holds mu.
func (s *Subsystem) publish() {
	for _, c := range s.controllers {
		if c != nil {
			c.publish()
		}
	}
}

// namespace finds an active namespace, nil if there is none of this number.
func (c *Controller) namespace(id uint32) *namespace {
	table := *c.table.Load()
	if i := id - 1; i < uint32(len(table)) {
		return table[i]
	}
	return nil
}

// active are the namespaces that are attached, in ascending order.
func (c *Controller) active() []*namespace {
	var list []*namespace
	for _, ns := range *c.table.Load() {
		if ns != nil {
			list = append(list, ns)
		}
	}
	return list
}

// allocated finds a namespace, attached or not, nil if there is none of this number.
func (s *Subsystem) allocated(id uint32) *namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := id - 1; i < MaxNamespaces {
		return s.namespaces[i]
	}
	return nil
}

// list are the namespaces, attached or not, in ascending order.
func (s *Subsystem) list() []*namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*namespace
	for _, ns := range s.namespaces {
		if ns != nil {
			list = append(list, ns)
		}
	}
	return list
}

// replace makes next, or nothing if it is nil, the view of a namespace. The namespace is
// excluded, and the caller holds mu.
func (s *Subsystem) replace(ns, next *namespace) {
	s.uncorrectable.forget(ns)
	ns.view.Store(next)
	if next == nil {
		s.forgetReservation(ns.allocation)
	}
	s.namespaces[ns.id-1] = next
	s.publish()
}

// enter and leave keep account of the hosts.
func (s *Subsystem) enter(h *host) {
	s.live.Lock()
	defer s.live.Unlock()
	s.live.hosts[h] = struct{}{}
}

func (s *Subsystem) leave(h *host) {
	s.live.Lock()
	defer s.live.Unlock()
	delete(s.live.hosts, h)
}

// addGroup and removeGroup keep account of the groups.
func (s *Subsystem) addGroup(g *group) {
	s.live.Lock()
	s.live.groups[g] = struct{}{}
	n := len(s.live.groups)
	s.live.Unlock()
	if n > 1 {
		s.gather()
	}
}

func (s *Subsystem) removeGroup(g *group) {
	s.live.Lock()
	defer s.live.Unlock()
	delete(s.live.groups, g)
}

func (s *Subsystem) groups() []*group {
	s.live.Lock()
	defer s.live.Unlock()
	return slices.Collect(maps.Keys(s.live.groups))
}
