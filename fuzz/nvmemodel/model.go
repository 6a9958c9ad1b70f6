package nvmemodel

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// maxNamespaces bounds what a program makes.
const maxNamespaces = 6

// namespace is what the model knows of one.
type namespace struct {
	id       uint32
	shift    uint
	bytes    uint64 // of its storage, of which less than a block may be left over
	cells    []cell
	attached [2]bool
	private  bool // one controller at a time
	pooled   bool // a host has made it
	protect  bool
	reservation
}

func (n *namespace) blocks() uint64 { return uint64(len(n.cells)) }

// host is what the model knows of a host and its controller.
type host struct {
	id      byte // host identifier; 0: none
	queues  [Queues]bool
	current map[featureKey]uint32
	saved   map[featureKey]uint32
	// failed is how the last command ended that has failed; 0: not known.
	failed spec.Status
}

type model struct {
	t     testing.TB
	s     *choice.Source
	d     Drive
	hosts []*host
	list  []*namespace // by number
	stamp uint32       // the last one that was used
	trace []string
}

// Run reads a program and runs it on the drive that open makes. What the drive does wrong fails
// t.
func Run(t testing.TB, s *choice.Source, open func(Config) Drive) {
	m := &model{t: t, s: s}
	cfg := Config{Hosts: 1 + s.Intn(2)}
	for range 1 + s.Intn(2) {
		n := m.newNamespace(uint32(len(cfg.Namespaces)+1), s.Odds(3), 8+uint64(s.Intn(121)))
		cfg.Namespaces = append(cfg.Namespaces, n.config())
		for h := range cfg.Hosts {
			n.attached[h] = true
		}
		m.list = append(m.list, n)
	}
	for range cfg.Hosts {
		m.hosts = append(m.hosts, &host{current: map[featureKey]uint32{}, saved: map[featureKey]uint32{}})
	}
	m.d = open(cfg)
	for i := 0; s.More(); i++ {
		op := m.pick()
		m.note(fmt.Sprintf("%d: %s", i, op.name))
		op.run(m)
	}
	m.note("end")
	m.check()
}

func (m *model) newNamespace(id uint32, large bool, blocks uint64) *namespace {
	n := &namespace{id: id, shift: shiftOf(large), cells: make([]cell, blocks)}
	n.bytes = blocks << n.shift
	n.erase()
	return n
}

// shiftOf is the exponent of a block size, which is 512 or 4096 bytes.
func shiftOf(large bool) uint {
	if large {
		return 12
	}
	return 9
}

func (n *namespace) erase() {
	for i := range n.cells {
		n.cells[i] = certainly(content{})
	}
}

func (n *namespace) config() Namespace {
	return Namespace{ID: n.id, Bytes: int64(n.bytes), BlockSize: 1 << n.shift}
}

// operation is a step of a program.
type operation struct {
	name   string
	weight int
	run    func(*model)
}

// operations are all that there are, with how often they come.
func operations() []operation {
	return []operation{
		{"one command", 60, (*model).oneCommand},
		{"several commands", 40, (*model).severalCommands},
		{"compare and write", 10, (*model).compareAndWrite},
		{"contest", 6, (*model).contest},
		{"copy", 10, (*model).copyBlocks},
		{"look", 10, (*model).look},
		{"create a namespace", 6, (*model).createNamespace},
		{"attach", 6, (*model).attach},
		{"delete a namespace", 3, (*model).deleteNamespace},
		{"format", 4, (*model).format},
		{"write protect", 4, (*model).writeProtect},
		{"add, resize or remove", 6, (*model).manage},
		{"set a feature", 16, (*model).setFeature},
		{"get a feature", 16, (*model).getFeature},
		{"host identifier", 8, (*model).setHostID},
		{"register", 12, (*model).register},
		{"acquire", 12, (*model).acquire},
		{"release", 8, (*model).release},
		{"report", 6, (*model).report},
		{"queue", 6, (*model).queue},
		{"sanitize", 2, (*model).sanitize},
		{"failing sanitize", 2, (*model).failSanitize},
		{"reserve", 5, (*model).reserve},
		{"fence", 5, (*model).fence},
		{"restart", 8, (*model).restart},
		{"migrate", 5, (*model).migrate},
		{"error log", 6, (*model).errorLog},
	}
}

var table, totalWeight = func() (list []operation, total int) {
	list = operations()
	for _, o := range list {
		total += o.weight
	}
	return list, total
}()

func (m *model) pick() operation {
	at := m.s.Intn(totalWeight)
	for _, o := range table {
		if at < o.weight {
			return o
		}
		at -= o.weight
	}
	panic("unreachable")
}

// logf adds to what the program has done.
func (m *model) logf(format string, args ...any) {
	m.note("   " + fmt.Sprintf(format, args...))
}

const traceLength = 60 // lines

func (m *model) note(line string) {
	if len(m.trace) > 10*traceLength {
		m.trace = append([]string(nil), m.trace[len(m.trace)-traceLength:]...)
	}
	m.trace = append(m.trace, line)
}

// fatalf says what is wrong, and what led to it.
func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	last := m.trace[max(0, len(m.trace)-traceLength):]
	m.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(last, "\n"))
}

// expect checks how a command has ended: with one of the errors if there are some, else with
// success.
func (m *model) expect(h int, what string, st spec.Status, errors ...spec.Status) {
	m.t.Helper()
	m.logf("host %d: %s: %v", h, what, st)
	if !st.OK() {
		m.hosts[h].failed = st.Code()
	}
	if len(errors) == 0 && !st.OK() || len(errors) > 0 && !slices.Contains(errors, st.Code()) {
		m.fatalf("host %d: %s: %v, want one of %v", h, what, st, errors)
	}
}

// find is the namespace of a number, nil if there is none.
func (m *model) find(id uint32) *namespace {
	for _, n := range m.list {
		if n.id == id {
			return n
		}
	}
	return nil
}

// anyHost and anyNamespace choose one. There may be no namespace.
func (m *model) anyHost() int { return m.s.Intn(len(m.hosts)) }

func (m *model) anyNamespace() *namespace {
	if len(m.list) == 0 {
		return nil
	}
	return m.list[m.s.Intn(len(m.list))]
}

// anyID is mostly a namespace that there is.
func (m *model) anyID() (uint32, *namespace) {
	if n := m.anyNamespace(); n != nil && !m.s.Odds(16) {
		return n.id, n
	}
	id := choice.Pick(m.s, 0, 1, 3, 7, 1000, 1024, 1025, uint32(m.s.Edge(1024)))
	if id == spec.BroadcastNSID {
		id = 0
	}
	return id, m.find(id)
}

// activeNamespaces are those that a host has.
func (m *model) activeNamespaces(h int) (list []*namespace) {
	for _, n := range m.list {
		if n.attached[h] {
			list = append(list, n)
		}
	}
	return list
}

// absent is the status of a command for a namespace that the host does not have.
func absent(id uint32) spec.Status {
	if id == 0 || id > 1024 {
		return spec.InvalidNamespaceOrFormat
	}
	return spec.InvalidField
}

// add takes a namespace into the list.
func (m *model) add(n *namespace) {
	m.list = append(m.list, n)
	slices.SortFunc(m.list, func(a, b *namespace) int { return int(a.id) - int(b.id) })
}

func (m *model) remove(n *namespace) {
	m.list = slices.DeleteFunc(m.list, func(x *namespace) bool { return x == n })
}
