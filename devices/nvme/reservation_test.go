package nvme

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
)

// testHost is a host with an identifier, or for numbers below 0 one without.
func testHost(n int) reserver {
	if n < 0 {
		return reserver{controller: uint16(-n)}
	}
	return reserver{host: spec.HostID{byte(n + 1)}}
}

// Who is allowed what, by type and role (Base 2.0, figure 434).
func TestReservationAccess(t *testing.T) {
	const (
		holder = iota
		registered
		stranger
	)
	for _, c := range []struct {
		kind        spec.ReservationType
		read, write [3]bool
	}{
		{spec.WriteExclusive, [3]bool{true, true, true}, [3]bool{true, false, false}},
		{spec.ExclusiveAccess, [3]bool{true, false, false}, [3]bool{true, false, false}},
		{spec.WriteExclusiveRegistrantsOnly, [3]bool{true, true, true}, [3]bool{true, true, false}},
		{spec.ExclusiveAccessRegistrantsOnly, [3]bool{true, true, false}, [3]bool{true, true, false}},
		{spec.WriteExclusiveAllRegistrants, [3]bool{true, true, true}, [3]bool{true, true, false}},
		{spec.ExclusiveAccessAllRegistrants, [3]bool{true, true, false}, [3]bool{true, true, false}},
	} {
		var r reservation
		for n := range stranger {
			if _, st := r.register(testHost(n), spec.RegisterKey, false, spec.ReservationKeys{Other: 7}); !st.OK() {
				t.Fatal(st)
			}
		}
		for n := range 3 {
			if !r.mayRead(testHost(n)) || !r.mayWrite(testHost(n)) {
				t.Errorf("role %d, no reservation: something is not allowed", n)
			}
		}
		if _, st := r.acquire(testHost(holder), spec.AcquireReservation, c.kind, spec.ReservationKeys{Current: 7}); !st.OK() {
			t.Fatal(st)
		}
		for n := range 3 {
			if read, write := r.mayRead(testHost(n)), r.mayWrite(testHost(n)); read != c.read[n] || write != c.write[n] {
				t.Errorf("type %d, role %d: read %v, write %v", c.kind, n, read, write)
			}
		}
	}
}

// step is a command of a sequence.
type step struct {
	op     uint8
	by     int
	action uint8
	ignore bool
	kind   spec.ReservationType
	keys   spec.ReservationKeys
}

func (r *reservation) step(s step) ([]notice, spec.Status) {
	switch s.op {
	case spec.NVMReservationRegister:
		return r.register(testHost(s.by), s.action, s.ignore, s.keys)
	case spec.NVMReservationAcquire:
		return r.acquire(testHost(s.by), s.action, s.kind, s.keys)
	}
	return r.release(testHost(s.by), s.action, s.kind, s.keys.Current)
}

func reg(by int, key uint64) step {
	return step{op: spec.NVMReservationRegister, by: by, keys: spec.ReservationKeys{Other: key}}
}

func unreg(by int, key uint64) step {
	return step{op: spec.NVMReservationRegister, by: by, action: spec.UnregisterKey, keys: spec.ReservationKeys{Current: key}}
}

func replace(by int, old, key uint64) step {
	return step{op: spec.NVMReservationRegister, by: by, action: spec.ReplaceKey, keys: spec.ReservationKeys{Current: old, Other: key}}
}

func acq(by int, key uint64, kind spec.ReservationType) step {
	return step{op: spec.NVMReservationAcquire, by: by, kind: kind, keys: spec.ReservationKeys{Current: key}}
}

func pre(by int, key, other uint64, kind spec.ReservationType) step {
	return step{op: spec.NVMReservationAcquire, by: by, action: spec.AcquirePreempt, kind: kind,
		keys: spec.ReservationKeys{Current: key, Other: other}}
}

func rel(by int, key uint64, kind spec.ReservationType) step {
	return step{op: spec.NVMReservationRelease, by: by, kind: kind, keys: spec.ReservationKeys{Current: key}}
}

func wipe(by int, key uint64) step {
	return step{op: spec.NVMReservationRelease, by: by, action: spec.ReleaseClear, keys: spec.ReservationKeys{Current: key}}
}

func (s step) ignoring() step {
	s.ignore = true
	return s
}

// The last step of each sequence is the one that is looked at.
func TestReservationRules(t *testing.T) {
	const (
		we   = spec.WriteExclusive
		ea   = spec.ExclusiveAccess
		wero = spec.WriteExclusiveRegistrantsOnly
		ealr = spec.ExclusiveAccessAllRegistrants
		ok   = spec.Success

		preempted = spec.NoticeRegistrationPreempted
		released  = spec.NoticeReservationReleased
		cleared   = spec.NoticeReservationPreempted
	)
	type told struct {
		to   int
		kind uint8
	}
	three := []step{reg(0, 10), reg(1, 11), reg(2, 12)}
	with := func(more ...step) []step { return append(slices.Clone(three), more...) }
	for _, c := range []struct {
		name  string
		steps []step
		want  spec.Status
		told  []told
		kind  spec.ReservationType // afterwards
		left  []int                // registrants
		gen   uint32
	}{
		{"register", three, ok, nil, 0, []int{0, 1, 2}, 3},
		{"register the same key again", with(reg(1, 11)), ok, nil, 0, []int{0, 1, 2}, 4},
		{"register another key", with(reg(1, 99)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"register a key that others have", with(reg(3, 11)), ok, nil, 0, []int{0, 1, 2, 3}, 4},
		{"register key 0", with(reg(3, 0)), badField, nil, 0, []int{0, 1, 2}, 3},
		{"unregister", with(unreg(1, 11)), ok, nil, 0, []int{0, 2}, 4},
		{"unregister by the wrong key", with(unreg(1, 12)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"unregister whatever the key", with(unreg(1, 12).ignoring()), ok, nil, 0, []int{0, 2}, 4},
		{"unregister a stranger", with(unreg(3, 11).ignoring()), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"replace", with(replace(1, 11, 21), unreg(1, 21)), ok, nil, 0, []int{0, 2}, 5},
		{"replace by the wrong key", with(replace(1, 12, 21)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"replace whatever the key", with(replace(1, 99, 21).ignoring(), unreg(1, 21)), ok, nil, 0, []int{0, 2}, 5},
		{"replace by 0", with(replace(1, 11, 0)), badField, nil, 0, []int{0, 1, 2}, 3},
		{"replace the key of a stranger", with(replace(3, 13, 23)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"replace whatever the key registers", with(replace(3, 0, 23).ignoring()), ok, nil, 0, []int{0, 1, 2, 3}, 4},
		{"the holder replaces its key", with(acq(1, 11, we), replace(1, 11, 21), rel(1, 21, we)), ok, nil, 0, []int{0, 1, 2}, 4},
		{"register an unknown action", with(step{op: spec.NVMReservationRegister, action: 3}), badField, nil, 0, []int{0, 1, 2}, 3},

		{"acquire", with(acq(1, 11, ea)), ok, nil, ea, []int{0, 1, 2}, 3},
		{"acquire by the wrong key", with(acq(1, 12, ea)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"acquire by a stranger", with(acq(3, 11, ea)), conflict, nil, 0, []int{0, 1, 2}, 3},
		{"acquire twice", with(acq(1, 11, ea), acq(1, 11, ea)), ok, nil, ea, []int{0, 1, 2}, 3},
		{"acquire of another type", with(acq(1, 11, ea), acq(1, 11, we)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"acquire what another holds", with(acq(1, 11, ea), acq(2, 12, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"acquire what all hold", with(acq(1, 11, ealr), acq(2, 12, ealr)), ok, nil, ealr, []int{0, 1, 2}, 3},
		{"acquire type 0", with(acq(1, 11, 0)), badField, nil, 0, []int{0, 1, 2}, 3},
		{"acquire type 7", with(acq(1, 11, 7)), badField, nil, 0, []int{0, 1, 2}, 3},
		{"acquire an unknown action", with(step{op: spec.NVMReservationAcquire, action: 3, kind: we}), badField, nil, 0, []int{0, 1, 2}, 3},

		{"release", with(acq(1, 11, ea), rel(1, 11, ea)), ok, nil, 0, []int{0, 1, 2}, 3},
		{"release of a type that others had rights by", with(acq(1, 11, wero), rel(1, 11, wero)), ok,
			[]told{{0, released}, {2, released}}, 0, []int{0, 1, 2}, 3},
		{"release by any registrant", with(acq(1, 11, ealr), rel(2, 12, ealr)), ok,
			[]told{{0, released}, {1, released}}, 0, []int{0, 1, 2}, 3},
		{"release of nothing", with(rel(1, 11, ea)), ok, nil, 0, []int{0, 1, 2}, 3},
		{"release of another's", with(acq(1, 11, ea), rel(2, 12, ea)), ok, nil, ea, []int{0, 1, 2}, 3},
		{"release of another type", with(acq(1, 11, ea), rel(1, 11, we)), badField, nil, ea, []int{0, 1, 2}, 3},
		{"release by the wrong key", with(acq(1, 11, ea), rel(1, 12, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"release by a stranger", with(acq(1, 11, ea), rel(3, 11, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"release an unknown action", with(step{op: spec.NVMReservationRelease, action: 2, keys: spec.ReservationKeys{Current: 10}}), badField,
			nil, 0, []int{0, 1, 2}, 3},
		{"clear", with(acq(1, 11, ea), wipe(2, 12)), ok, []told{{0, cleared}, {1, cleared}}, 0, nil, 4},
		{"clear without a reservation", with(wipe(0, 10)), ok, []told{{1, cleared}, {2, cleared}}, 0, nil, 4},
		{"clear by a stranger", with(wipe(3, 10)), conflict, nil, 0, []int{0, 1, 2}, 3},

		{"the holder unregisters", with(acq(1, 11, ea), unreg(1, 11)), ok, nil, 0, []int{0, 2}, 4},
		{"the holder for registrants unregisters", with(acq(1, 11, wero), unreg(1, 11)), ok,
			[]told{{0, released}, {2, released}}, 0, []int{0, 2}, 4},
		{"another one unregisters", with(acq(1, 11, wero), unreg(0, 10)), ok, nil, wero, []int{1, 2}, 4},
		{"one of all unregisters", with(acq(1, 11, ealr), unreg(1, 11)), ok, nil, ealr, []int{0, 2}, 4},
		{"the last of all unregisters", []step{reg(0, 10), acq(0, 10, ealr), unreg(0, 10)}, ok, nil, 0, nil, 2},

		{"preempt the holder", with(acq(1, 11, ea), pre(2, 12, 11, ea)), ok, []told{{1, preempted}}, ea, []int{0, 2}, 4},
		{"preempt the holder for another type", with(acq(1, 11, ea), pre(2, 12, 11, we)), ok,
			[]told{{1, preempted}, {0, released}}, we, []int{0, 2}, 4},
		{"preempt a registrant", with(acq(1, 11, ea), pre(2, 12, 10, we)), ok, []told{{0, preempted}}, ea, []int{1, 2}, 4},
		{"the holder preempts a registrant", with(acq(1, 11, wero), pre(1, 11, 10, we)), ok, []told{{0, preempted}}, wero, []int{1, 2}, 4},
		{"preempt all of a key", append(with(reg(3, 11), acq(1, 11, ea)), pre(2, 12, 11, ea)), ok,
			[]told{{1, preempted}, {3, preempted}}, ea, []int{0, 2}, 5},
		{"preempt oneself", with(acq(1, 11, ea), pre(1, 11, 11, we)), ok, []told{{0, released}, {2, released}}, we, []int{0, 1, 2}, 4},
		{"preempt oneself for the same type", with(acq(1, 11, ea), pre(1, 11, 11, ea)), ok, nil, ea, []int{0, 1, 2}, 4},
		{"preempt without a reservation", with(pre(1, 11, 10, ea)), ok, []told{{0, preempted}}, 0, []int{1, 2}, 4},
		{"preempt nobody", with(acq(1, 11, ea), pre(2, 12, 99, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"preempt key 0", with(acq(1, 11, ea), pre(2, 12, 0, ea)), badField, nil, ea, []int{0, 1, 2}, 3},
		{"preempt by a stranger", with(acq(1, 11, ea), pre(3, 13, 11, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"preempt by the wrong key", with(acq(1, 11, ea), pre(2, 11, 11, ea)), conflict, nil, ea, []int{0, 1, 2}, 3},
		{"preempt all", with(acq(1, 11, ealr), pre(2, 12, 0, we)), ok, []told{{0, preempted}, {1, preempted}}, we, []int{2}, 4},
		{"preempt one of all", with(acq(1, 11, ealr), pre(2, 12, 11, we)), ok, []told{{1, preempted}}, ealr, []int{0, 2}, 4},
		{"preempt nobody of all", with(acq(1, 11, ealr), pre(2, 12, 99, we)), conflict, nil, ealr, []int{0, 1, 2}, 3},
		{"preempt oneself as one of all", with(acq(1, 11, ealr), pre(2, 12, 12, we)), ok, nil, ealr, []int{0, 1}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r reservation
			var got []notice
			var st spec.Status
			for i, s := range c.steps {
				if got, st = r.step(s); !st.OK() && i < len(c.steps)-1 {
					t.Fatalf("step %d: %v", i, st)
				}
			}
			var want []notice
			for _, n := range c.told {
				want = append(want, notice{testHost(n.to), n.kind})
			}
			if st != c.want || !slices.Equal(got, want) {
				t.Errorf("%v, told %v", st, got)
			}
			var left []reserver
			for _, g := range r.registrants {
				left = append(left, g.reserver)
			}
			var wantLeft []reserver
			for _, n := range c.left {
				wantLeft = append(wantLeft, testHost(n))
			}
			if r.kind != c.kind || !slices.Equal(left, wantLeft) || r.generation != c.gen {
				t.Errorf("type %d, registrants %v, generation %d", r.kind, left, r.generation)
			}
		})
	}
}

func TestReservationRegistrantsAreBounded(t *testing.T) {
	var r reservation
	for n := range maxRegistrants {
		if _, st := r.register(testHost(-1-n), spec.RegisterKey, false, spec.ReservationKeys{Other: 1}); !st.OK() {
			t.Fatal(n, st)
		}
	}
	for _, action := range []uint8{spec.RegisterKey, spec.ReplaceKey} {
		if _, st := r.register(testHost(0), action, true, spec.ReservationKeys{Other: 1}); st != spec.InternalError {
			t.Error(st)
		}
	}
	if _, st := r.register(testHost(-5), spec.ReplaceKey, true, spec.ReservationKeys{Other: 2}); !st.OK() {
		t.Error(st)
	}
}

// reservationModel is the rules once more: sets of holders instead of one holder and a type
// by which all hold.
type reservationModel struct {
	keys    map[reserver]uint64
	kind    spec.ReservationType
	holders map[reserver]bool
	gen     uint32
}

func (m *reservationModel) drop(h reserver) {
	delete(m.keys, h)
	delete(m.holders, h)
	if len(m.holders) == 0 {
		m.kind = 0
	}
}

func (m *reservationModel) grant(h reserver, kind spec.ReservationType) {
	m.kind, m.holders = kind, map[reserver]bool{h: true}
	if kind >= 5 {
		for g := range m.keys {
			m.holders[g] = true
		}
	}
}

func (m *reservationModel) join(h reserver, key uint64) {
	m.keys[h] = key
	if m.kind >= 5 {
		m.holders[h] = true
	}
}

func (m *reservationModel) step(s step) (told map[notice]bool, st spec.Status) {
	h := testHost(s.by)
	key, member := m.keys[h]
	told = map[notice]bool{}
	others := func(kind uint8) {
		for g := range m.keys {
			if g != h {
				told[notice{g, kind}] = true
			}
		}
	}
	keyFits := member && key == s.keys.Current
	switch s.op<<4 | s.action {
	case spec.NVMReservationRegister<<4 | spec.RegisterKey:
		if s.keys.Other == 0 {
			return told, badField
		}
		if member && key != s.keys.Other {
			return told, conflict
		}
		m.join(h, s.keys.Other)
		m.gen++
	case spec.NVMReservationRegister<<4 | spec.ReplaceKey:
		if s.keys.Other == 0 {
			return told, badField
		}
		if !keyFits && !s.ignore {
			return told, conflict
		}
		m.join(h, s.keys.Other)
		m.gen++
	case spec.NVMReservationRegister<<4 | spec.UnregisterKey:
		if !member || !keyFits && !s.ignore {
			return told, conflict
		}
		before := m.kind
		m.drop(h)
		if m.kind != before && (before == 3 || before == 4) {
			others(2)
		}
		m.gen++
	case (spec.NVMReservationAcquire<<4 | spec.AcquireReservation) & 0xff:
		if s.kind < 1 || s.kind > 6 {
			return told, badField
		}
		if !keyFits || m.kind != 0 && !(m.holders[h] && m.kind == s.kind) {
			return told, conflict
		}
		if m.kind == 0 {
			m.grant(h, s.kind)
		}
	case (spec.NVMReservationAcquire<<4 | spec.AcquirePreempt) & 0xff, (spec.NVMReservationAcquire<<4 | spec.AcquireAbort) & 0xff:
		if s.kind < 1 || s.kind > 6 {
			return told, badField
		}
		if !keyFits {
			return told, conflict
		}
		victims := map[reserver]bool{}
		for g, k := range m.keys {
			if k == s.keys.Other || s.keys.Other == 0 && m.kind >= 5 {
				victims[g] = true
			}
		}
		holderHit := false
		for g := range m.holders {
			holderHit = holderHit || victims[g]
		}
		takes := holderHit && (m.kind <= 4 || s.keys.Other == 0)
		if s.keys.Other == 0 && m.kind >= 1 && m.kind <= 4 {
			return told, badField
		}
		if len(victims) == 0 {
			return told, conflict
		}
		before := m.kind
		if takes {
			delete(victims, h)
		}
		for g := range victims {
			m.drop(g)
			if g != h {
				told[notice{g, 1}] = true
			}
		}
		if takes {
			m.grant(h, s.kind)
			if before != s.kind {
				others(2)
			}
		}
		m.gen++
	case (spec.NVMReservationRelease<<4 | spec.ReleaseReservation) & 0xff:
		if !keyFits {
			return told, conflict
		}
		if !m.holders[h] {
			return told, spec.Success
		}
		if m.kind != s.kind {
			return told, badField
		}
		if m.kind >= 3 {
			others(2)
		}
		m.kind, m.holders = 0, nil
	case (spec.NVMReservationRelease<<4 | spec.ReleaseClear) & 0xff:
		if !keyFits {
			return told, conflict
		}
		others(3)
		m.kind, m.holders, m.keys = 0, nil, map[reserver]uint64{}
		m.gen++
	}
	return told, spec.Success
}

func (m *reservationModel) allowed(h reserver) (read, write bool) {
	_, member := m.keys[h]
	switch m.kind {
	case 0:
		return true, true
	case 1:
		return true, m.holders[h]
	case 2:
		return m.holders[h], m.holders[h]
	case 3, 5:
		return true, member
	}
	return member, member
}

func TestReservationAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r reservation
		m := reservationModel{keys: map[reserver]uint64{}}
		hosts := []int{0, 1, 2, -1, -2}
		for n := range 300 {
			s := step{
				op:     []uint8{spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease}[rnd.IntN(3)],
				by:     hosts[rnd.IntN(len(hosts))],
				action: uint8(rnd.IntN(3)),
				ignore: rnd.IntN(4) == 0,
				kind:   spec.ReservationType(rnd.IntN(8)),
				keys:   spec.ReservationKeys{Current: rnd.Uint64N(4), Other: rnd.Uint64N(4)},
			}
			if s.op == spec.NVMReservationRelease {
				s.action = uint8(min(1, rnd.IntN(8)/7))
			}
			if rnd.IntN(2) == 0 {
				s.keys.Current = m.keys[testHost(s.by)]
			}
			if s.op == spec.NVMReservationRelease && rnd.IntN(2) == 0 {
				s.kind = m.kind
			}
			want, wantSt := m.step(s)
			told, st := r.step(s)
			got := map[notice]bool{}
			for _, n := range told {
				got[n] = true
			}
			if st != wantSt || !maps.Equal(got, want) || len(got) != len(told) || r.kind != m.kind || r.generation != m.gen {
				t.Fatalf("seed %d, step %d, %+v: %v, told %v, type %d, generation %d;\nthe model: %v, %v, %d, %d",
					seed, n, s, st, told, r.kind, r.generation, wantSt, want, m.kind, m.gen)
			}
			keys := map[reserver]uint64{}
			for _, g := range r.registrants {
				keys[g.reserver] = g.key
			}
			if !maps.Equal(keys, m.keys) {
				t.Fatalf("seed %d, step %d, %+v: registrants %v, the model's %v", seed, n, s, keys, m.keys)
			}
			for _, n := range append(hosts, 9) {
				h := testHost(n)
				if read, write := m.allowed(h); r.mayRead(h) != read || r.mayWrite(h) != write || r.holds(h) != m.holders[h] {
					t.Fatalf("seed %d, step %d, %+v: host %d: read %v, write %v, holds %v", seed, n, s, n, r.mayRead(h), r.mayWrite(h), r.holds(h))
				}
			}
		}
	}
}
