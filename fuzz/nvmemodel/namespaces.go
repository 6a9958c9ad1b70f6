package nvmemodel

import (
	"encoding/binary"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// inUse is what the namespaces that hosts have made take of the pool.
func (m *model) inUse() (bytes uint64) {
	for _, n := range m.list {
		if n.pooled {
			bytes += n.bytes
		}
	}
	return bytes
}

func (m *model) createNamespace() {
	h := m.anyHost()
	n := m.newNamespace(0, m.s.Odds(3), 1+uint64(m.s.Intn(200)))
	n.pooled, n.private = true, m.s.Odds(3)
	id := spec.IdentifyNamespace{Size: n.blocks(), Capacity: n.blocks(), FLBAS: uint8(formatIndex(n.shift))}
	if !n.private {
		id.NMIC = spec.NMICShared
	}
	var errors []spec.Status
	switch m.s.Intn(12) {
	case 1:
		id.Size, id.Capacity, errors = 0, 0, []spec.Status{spec.InvalidField}
	case 2:
		id.Capacity /= 2
		errors = []spec.Status{spec.ThinProvisioningNotSupported}
	case 3:
		id.FLBAS, errors = 0x4f, []spec.Status{spec.InvalidFormat}
	case 4:
		id.Size, errors = 1<<40, []spec.Status{spec.NamespaceInsufficientCapacity}
		id.Capacity = id.Size
	case 5:
		id.Capacity++
		errors = []spec.Status{spec.InvalidField}
	}
	if len(m.list) >= maxNamespaces && errors == nil {
		return
	}
	if errors == nil && m.inUse()+n.bytes > PoolSize {
		errors = []spec.Status{spec.NamespaceInsufficientCapacity}
	}
	data := make([]byte, spec.IdentifySize)
	id.Put(data)
	st, nsid := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceCreate}, data)
	m.expect(h, "create a namespace", st, errors...)
	if !st.OK() {
		return
	}
	if nsid == 0 || nsid > 1024 || m.find(nsid) != nil {
		m.fatalf("namespace %d was created", nsid)
	}
	n.id = nsid
	m.add(n)
}

// writable adds the status of an admin command that a reservation keeps from a namespace.
func (m *model) writable(h int, n *namespace, errors []spec.Status) []spec.Status {
	if n != nil && !n.mayWrite(m.reserver(h)) {
		errors = append(errors, spec.ReservationConflict)
	}
	return errors
}

// attach attaches or detaches a namespace.
func (m *model) attach() {
	h := m.anyHost()
	id, n := m.anyID()
	who := []int{m.anyHost()}
	if len(m.hosts) > 1 && m.s.Odds(3) {
		who = []int{0, 1}
	}
	detach := m.s.Odds(3)
	var ids []uint16
	for _, w := range who {
		ids = append(ids, uint16(w+1))
	}
	errors := m.writable(h, n, nil)
	switch {
	case n == nil:
		errors = []spec.Status{absent(id)}
	case m.s.Odds(16):
		ids = []uint16{uint16(len(m.hosts) + 1)}
		errors = append(errors, spec.ControllerListInvalid)
	default:
		attached := func(w int) bool { return n.attached[w] }
		both := n.attached
		for _, w := range who {
			both[w] = true
		}
		switch {
		case detach && !slices.ContainsFunc(who, func(w int) bool { return !attached(w) }):
		case detach:
			errors = append(errors, spec.NamespaceNotAttached)
		case slices.ContainsFunc(who, attached):
			errors = append(errors, spec.NamespaceAlreadyAttached)
		case n.private && both[0] && both[1]:
			errors = append(errors, spec.NamespaceIsPrivate)
		}
	}
	data := make([]byte, spec.IdentifySize)
	spec.PutControllerList(data, ids)
	e := spec.SubmissionEntry{Opcode: spec.AdminNamespaceAttachment, NSID: id, CDW10: spec.NamespaceAttach}
	what := "attach"
	if detach {
		e.CDW10, what = spec.NamespaceDetach, "detach"
	}
	m.logf("%s namespace %d, controllers %d", what, id, ids)
	st, _ := m.d.Admin(h, e, data)
	m.expect(h, what, st, errors...)
	if st.OK() {
		for _, w := range who {
			if n.attached[w] = !detach; !detach {
				m.newcomer(w, n)
			}
		}
	}
}

func (m *model) deleteNamespace() {
	h := m.anyHost()
	id, n := m.anyID()
	errors := m.writable(h, n, nil)
	switch {
	case n == nil:
		errors = []spec.Status{absent(id)}
	case n.protect:
		errors = append(errors, spec.NamespaceWriteProtected)
	}
	st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, NSID: id, CDW10: spec.NamespaceDelete}, nil)
	m.logf("namespace %d", id)
	m.expect(h, "delete a namespace", st, errors...)
	if st.OK() {
		m.remove(n)
	}
}

func formatIndex(shift uint) uint32 { return uint32(shift-9) / 3 }

func formatCommand(id uint32, shift uint) spec.SubmissionEntry {
	f := spec.FormatNVM{Format: uint8(formatIndex(shift)), Erase: spec.EraseUser}
	return spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: id, CDW10: f.Word()}
}

func (m *model) format() {
	h := m.anyHost()
	id, n := m.anyID()
	shift := shiftOf(m.s.Odds(3))
	errors := m.writable(h, n, nil)
	switch {
	case n == nil:
		errors = []spec.Status{absent(id)}
	case n.protect:
		errors = append(errors, spec.NamespaceWriteProtected)
	case n.bytes < 1<<shift:
		errors = append(errors, spec.InvalidFormat)
	}
	m.logf("namespace %d, blocks of %d", id, 1<<shift)
	st, _ := m.d.Admin(h, formatCommand(id, shift), nil)
	m.expect(h, "format", st, errors...)
	if st.OK() {
		n.cells = make([]cell, n.bytes>>shift)
		n.shift = shift
		n.erase()
	}
}

func (m *model) writeProtect() {
	h := m.anyHost()
	id, n := m.anyID()
	state := uint32(m.s.Intn(2))
	var errors []spec.Status
	if n == nil || !n.attached[h] {
		errors = []spec.Status{absent(id), spec.InvalidField}
	}
	m.logf("namespace %d, write protection %d", id, state)
	st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: id, CDW10: spec.FeatWriteProtect, CDW11: state}, nil)
	m.expect(h, "write protect", st, errors...)
	if st.OK() {
		n.protect = state == spec.WriteProtectOn
	}
	if n != nil && n.attached[h] {
		st, have := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: id, CDW10: spec.FeatWriteProtect}, nil)
		m.expect(h, "get write protection", st)
		if (have == spec.WriteProtectOn) != n.protect {
			m.fatalf("namespace %d: write protection is %d", id, have)
		}
	}
}

// manage is what the owner of the subsystem does with its namespaces.
func (m *model) manage() {
	n := m.anyNamespace()
	bytes := int64(1+m.s.Intn(64)) << 12
	switch how := m.s.Intn(4); {
	case how == 0 && len(m.list) < maxNamespaces:
		large := m.s.Bool()
		n := m.newNamespace(0, large, uint64(bytes)>>shiftOf(large))
		n.id = m.d.Add(n.config())
		m.logf("namespace %d of %d bytes is added", n.id, bytes)
		if m.find(n.id) != nil || n.id == 0 {
			m.fatalf("namespace %d was added", n.id)
		}
		for h := range m.hosts {
			n.attached[h] = true
		}
		m.add(n)
		m.newcomer(m.anyHost(), n)
	case n == nil || n.pooled:
	case how == 1 && len(m.list) > 1:
		m.logf("namespace %d is removed", n.id)
		m.d.Remove(n.id)
		m.remove(n)
	case how > 1:
		m.logf("namespace %d gets %d bytes", n.id, bytes)
		m.d.Resize(n.id, bytes)
		blocks := uint64(bytes) >> n.shift
		for n.blocks() < blocks {
			n.cells = append(n.cells, certainly(content{}))
		}
		n.cells, n.bytes = n.cells[:blocks], uint64(bytes)
	}
}

// look compares what a host is told with what there is.
func (m *model) look() {
	h := m.anyHost()
	identify := func(cns uint32, id uint32, errors ...spec.Status) []byte {
		data := make([]byte, spec.IdentifySize)
		st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: id, CDW10: cns}, data)
		m.expect(h, "identify", st, errors...)
		return data
	}
	ids := func(list []*namespace) (ids []uint32) {
		for _, n := range list {
			ids = append(ids, n.id)
		}
		return ids
	}
	if have, want := spec.NamespaceList(identify(spec.CNSActiveNamespaces, 0)), ids(m.activeNamespaces(h)); !slices.Equal(have, want) {
		m.fatalf("host %d: active namespaces %d, want %d", h, have, want)
	}
	if have, want := spec.NamespaceList(identify(spec.CNSAllocatedNamespaces, 0)), ids(m.list); !slices.Equal(have, want) {
		m.fatalf("host %d: namespaces %d, want %d", h, have, want)
	}
	var c spec.IdentifyController
	c.Get(identify(spec.CNSController, 0))
	if free := c.UnallocatedCapacity[0]; free != PoolSize-m.inUse() {
		m.fatalf("host %d: %d bytes are not allocated, want %d", h, free, PoolSize-m.inUse())
	}
	n := m.anyNamespace()
	if n == nil {
		return
	}
	var have spec.IdentifyNamespace
	have.Get(identify(spec.CNSAllocatedNamespace, n.id))
	if have.Size != n.blocks() || have.BlockSize() != 1<<n.shift || have.NMIC&spec.NMICShared == 0 != n.private {
		m.fatalf("namespace %d: %d blocks of %d, NMIC %#x; want %d of %d, private %v", n.id, have.Size, have.BlockSize(), have.NMIC, n.blocks(), 1<<n.shift, n.private)
	}
	have.Get(identify(spec.CNSNamespace, n.id))
	if want := n.blocks(); n.attached[h] && have.Size != want || !n.attached[h] && have.Size != 0 {
		m.fatalf("host %d: namespace %d has %d blocks, want %d; attached %v", h, n.id, have.Size, want, n.attached)
	}
	list, _ := spec.ControllerList(identify(spec.CNSNamespaceControllers, n.id))
	for w := range m.hosts {
		if slices.Contains(list, uint16(w+1)) != n.attached[w] {
			m.fatalf("namespace %d: controllers %d, want %v", n.id, list, n.attached)
		}
	}
	if sum := binary.LittleEndian.Uint64(identify(spec.CNSDescriptors, n.id, m.absentUnless(n.attached[h])...)[4:]); n.attached[h] && sum == 0 {
		m.fatalf("namespace %d has no identifier", n.id)
	}
}

// absentUnless is the status of a command for a namespace that is there, but perhaps not for
// the host.
func (m *model) absentUnless(attached bool) []spec.Status {
	if attached {
		return nil
	}
	return []spec.Status{spec.InvalidField}
}
