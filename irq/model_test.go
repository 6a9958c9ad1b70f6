package irq

// setModel says what a set holds and which eventfds it has signalled, one operation at a time.
type setModel struct {
	vectors [NumIndexes][]modelVector
	enabled [NumIndexes]bool
	closed  bool
	signals []uint64 // by eventfd, since they were last looked at
}

// modelVector is one interrupt. Its eventfds are numbers of setModel.signals, -1 is none.
type modelVector struct {
	masked, pending, level  bool
	gates                   Gate
	event, onMask, onUnmask int
	intx                    bool // level-triggered, masks itself by firing
	latch                   bool // stays pending while it has no eventfd
}

func newSetModel(counts [NumIndexes]int, eventfds int) *setModel {
	m := &setModel{signals: make([]uint64, eventfds)}
	for i, n := range counts {
		for range n {
			m.vectors[i] = append(m.vectors[i], modelVector{event: -1, onMask: -1, onUnmask: -1, intx: Index(i) == INTx, latch: Index(i) <= MSIX})
		}
	}
	return m
}

// span are the vectors of a range, nil if there is no such range.
func (m *setModel) span(i Index, start, count int) []modelVector {
	if i >= NumIndexes || start < 0 || count < 1 || start+count > len(m.vectors[i]) {
		return nil
	}
	return m.vectors[i][start : start+count]
}

func (m *setModel) signal(event int) {
	if event >= 0 {
		m.signals[event]++
	}
}

// settle fires a vector that has a reason to and nothing against it.
func (m *setModel) settle(v *modelVector) {
	reason := v.pending || v.intx && v.level
	if !reason || v.masked || v.gates != 0 || v.event < 0 || m.closed {
		return
	}
	v.pending = false
	m.signal(v.event)
	if v.intx {
		v.masked = true
		m.signal(v.onMask)
	}
}

// trigger is an edge.
func (m *setModel) trigger(v *modelVector) error {
	switch {
	case m.closed:
		return ErrClosed
	case v.event >= 0 && !v.masked && v.gates == 0 && !v.intx:
		m.signal(v.event) // whatever is pending stays so
		return nil
	case v.event < 0 && !v.latch:
		return nil
	}
	v.pending = true
	m.settle(v)
	return nil
}

func (m *setModel) setLevel(v *modelVector, high bool) error {
	rises := high && !v.level
	v.level = high
	switch {
	case high && m.closed:
		return ErrClosed
	case rises && v.intx:
		m.settle(v)
	case rises:
		return m.trigger(v)
	}
	return nil
}

// assign gives the vectors of a range the eventfds of one action.
func (m *setModel) assign(i Index, start int, events []int, of func(*modelVector) *int, trigger bool) error {
	vs := m.span(i, start, len(events))
	switch {
	case vs == nil:
		return ErrRange
	case !trigger && i > MSIX:
		return ErrAction
	case m.closed:
		return ErrClosed
	}
	for k := range vs {
		*of(&vs[k]) = events[k]
	}
	if trigger {
		m.enabled[i] = true
		for k := range vs {
			m.settle(&vs[k])
		}
	}
	return nil
}

// act does something to the vectors of a range for which which, if there is one, is not 0.
func (m *setModel) act(i Index, start, count int, which []byte, all bool, do func(*modelVector) error) error {
	vs := m.span(i, start, count)
	switch {
	case vs == nil:
		return ErrRange
	case which != nil && len(which) != count:
		return ErrData
	case !all && i > MSIX:
		return ErrAction
	}
	for k := range vs {
		if which != nil && which[k] == 0 {
			continue
		}
		if err := do(&vs[k]); err != nil {
			return err
		}
	}
	return nil
}

func (m *setModel) mask(v *modelVector) error {
	if !v.masked {
		m.signal(v.onMask)
	}
	v.masked = true
	return nil
}

func (m *setModel) unmask(v *modelVector) error {
	if v.masked {
		m.signal(v.onUnmask)
	}
	v.masked = false
	m.settle(v)
	return nil
}

func (m *setModel) gate(g Gate, closed bool) func(*modelVector) error {
	return func(v *modelVector) error {
		if closed {
			v.gates |= g
			return nil
		}
		opened := v.gates&g != 0
		if v.gates &^= g; opened {
			m.settle(v)
		}
		return nil
	}
}

func (m *setModel) disable(i Index) {
	m.enabled[i] = false
	for k := range m.vectors[i] {
		v := &m.vectors[i][k]
		v.event, v.onMask, v.onUnmask, v.masked, v.pending = -1, -1, -1, false, false
	}
}

func (m *setModel) close() {
	m.closed = true
	for i := range m.vectors {
		m.disable(Index(i))
	}
}

// each does something to all vectors, in the order of their indexes.
func (m *setModel) each(do func(i Index, n int, v *modelVector)) {
	for i := range m.vectors {
		for n := range m.vectors[i] {
			do(Index(i), n, &m.vectors[i][n])
		}
	}
}

// save is a byte for each vector: masked, pending, gates.
func (m *setModel) save() (p []byte) {
	m.each(func(_ Index, _ int, v *modelVector) {
		var b byte
		for n, on := range []bool{v.masked, v.pending, v.gates&GateFunction != 0, v.gates&GateVector != 0} {
			if on {
				b |= 1 << n
			}
		}
		p = append(p, b)
	})
	return p
}

func (m *setModel) restore(p []byte) error {
	n, valid := 0, true
	m.each(func(i Index, _ int, _ *modelVector) {
		if n < len(p) && (p[n] > 15 || i > MSIX && p[n]&^2 != 0) {
			valid = false
		}
		n++
	})
	if n != len(p) || !valid {
		return ErrData
	}
	m.each(func(_ Index, _ int, v *modelVector) {
		v.masked, v.pending, v.gates = p[0]&1 != 0, p[0]&2 != 0, 0
		if p[0]&4 != 0 {
			v.gates |= GateFunction
		}
		if p[0]&8 != 0 {
			v.gates |= GateVector
		}
		p = p[1:]
	})
	return nil
}
