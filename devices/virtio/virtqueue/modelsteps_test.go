package virtqueue

import (
	"errors"
	"slices"
)

func (m *model) takeSome() {
	var list []Chain
	var n int
	var err error
	m.device(func() {
		list = make([]Chain, 1+m.rng.IntN(8))
		seen := m.q.Available()
		n, err = m.q.Take(list)
		if (seen > 0) != (n > 0 || err != nil) {
			m.fatalf("%d available, %d taken, %v", seen, n, err)
		}
		for i := range list[:n] {
			m.check(&list[i])
		}
	})
	m.note("take: %d, %v", n, err)
	shown := len(m.waiting) + n - m.placed
	if err == nil && n < min(len(list), shown) && m.how == mapped {
		m.fatalf("took %d of %d, %d were shown", n, len(list), shown)
	}
	if n > shown {
		m.fatalf("took %d, %d were shown", n, shown)
	}
	if errors.Is(err, ErrRemote) && m.how == mixed {
		m.q.SetRemote(m.g)
		m.note("by message from here")
		m.counts.remotes++
	} else if err != nil {
		m.fatalf("Take: %v", err)
	}
}

// check compares a chain with the one that was offered next.
func (m *model) check(c *Chain) {
	if len(m.waiting) == 0 {
		m.fatalf("took a chain that was not there")
	}
	o := m.waiting[0]
	m.waiting = m.waiting[1:]
	var read, write, i int
	for _, e := range o.elements {
		if e.write {
			write += int(e.n)
		} else {
			read += int(e.n)
		}
	}
	if int(c.ReadableLen) != read || int(c.WritableLen) != write {
		m.fatalf("chain %d has %d+%d bytes, offered %d+%d", o.seq, c.ReadableLen, c.WritableLen, read, write)
	}
	for _, b := range c.Readable {
		for _, v := range b {
			if v != pattern(o.seq, 0, i) {
				m.fatalf("chain %d, byte %d is wrong", o.seq, i)
			}
			i++
		}
	}
	for _, b := range c.Writable {
		write -= len(b)
	}
	if i != read || write != 0 {
		m.fatalf("chain %d: buffers of %d and %d bytes", o.seq, i, write)
	}
	m.flight = append(m.flight, &taken{chain: c, o: o})
}

// untakeSome gives back the last chains, none of which is pushed.
func (m *model) untakeSome() {
	// The list has only what is not pushed, but a chain taken later may be pushed.
	last := -1
	for _, p := range m.pushed {
		last = max(last, p.o.seq)
	}
	n := 0
	for n < len(m.flight) && m.flight[len(m.flight)-1-n].o.seq > max(last, m.newest) {
		n++
	}
	if n == 0 {
		return
	}
	n = 1 + m.rng.IntN(n)
	m.device(func() { m.q.Untake(n) })
	m.note("untake %d", n)
	var again []*offer
	for _, f := range m.flight[len(m.flight)-n:] {
		again = append(again, f.o)
	}
	m.waiting = append(again, m.waiting...)
	m.flight = m.flight[:len(m.flight)-n]
}

func (m *model) pushSome() {
	for range m.rng.IntN(5) {
		if len(m.flight) == 0 {
			return
		}
		i := 0
		if !m.cfg.InOrder {
			i = m.rng.IntN(len(m.flight))
		}
		f := m.flight[i]
		m.flight = slices.Delete(m.flight, i, i+1)
		if w := f.chain.WritableLen; w > 0 && m.rng.IntN(4) > 0 {
			f.written = 1 + m.rng.Uint32N(w)
		}
		m.device(func() {
			k := 0
			for _, b := range f.chain.Writable {
				for j := range b {
					if k == int(f.written) {
						break
					}
					b[j] = pattern(f.o.seq, writeSalt, k)
					k++
				}
			}
			m.q.Push(f.chain, f.written)
			*f.chain = Chain{} // the caller's again
		})
		m.note("push %d, %d bytes", f.o.seq, f.written)
		m.pushed = append(m.pushed, f)
		m.newest = max(m.newest, f.o.seq)
	}
}

// publish shows the driver what is pushed, who checks at once.
func (m *model) publish() {
	if chains, _ := m.driver.collect(); len(chains) > 0 {
		m.fatalf("%d chains are visible before Publish", len(chains))
	}
	var interrupt bool
	m.device(func() { interrupt = m.q.Publish() })
	must(m.t, m.q.Err())
	chains, want := m.driver.collect()
	m.note("publish: %d, interrupt %v", len(m.pushed), interrupt)
	if interrupt {
		m.counts.interrupts++
	}
	m.counts.chains += len(chains)
	if interrupt != want {
		m.fatalf("interrupt %v, the driver wants %v", interrupt, want)
	}
	if len(chains) != len(m.pushed) {
		m.fatalf("%d used, %d pushed", len(chains), len(m.pushed))
	}
	for i, p := range m.pushed {
		c := chains[i]
		if c.o != p.o || c.n != p.written {
			m.fatalf("used %d with %d bytes, pushed %d with %d", c.o.seq, c.n, p.o.seq, p.written)
		}
		m.checkWritten(c)
		m.slots = append(m.slots, p.o.slot)
	}
	m.pushed = m.pushed[:0]
}

// checkWritten looks at what the device wrote, and that it wrote nothing else.
func (m *model) checkWritten(c usedChain) {
	k := 0
	for _, e := range c.o.elements {
		if !e.write {
			continue
		}
		for _, v := range m.g.at(e.addr, int(e.n)) {
			want := byte(canary)
			if k < int(c.n) {
				want = pattern(c.o.seq, writeSalt, k)
			}
			if v != want {
				m.fatalf("chain %d, byte %d was not written right", c.o.seq, k)
			}
			k++
		}
	}
}

// wish changes when the driver wants to be interrupted.
func (m *model) wish() {
	switch m.rng.IntN(3) {
	case 0:
		m.driver.quiet()
		m.note("quiet")
	default:
		n := m.rng.IntN(int(m.cfg.Size))
		if m.rng.IntN(2) == 0 {
			n = 0
		}
		m.driver.want(n)
		m.note("want %d", n)
	}
}

func (m *model) sleep() {
	var pending bool
	m.device(func() { pending = m.q.Arm() })
	shown := len(m.waiting) - m.placed
	m.note("arm: pending %v", pending)
	if pending != (shown > 0) {
		m.fatalf("Arm says %v, %d are there", pending, shown)
	}
	m.asleep = !pending
	if m.asleep {
		m.counts.sleeps++
	}
}

// move goes on with another Queue, or by another way.
func (m *model) move() {
	if m.how == mixed && m.q.mem != nil {
		q := m.q
		m.g.r.Enter()
		defer m.g.r.Exit()
		err := q.Translate(m.g.r)
		if remote := slices.ContainsFunc(m.flight, func(f *taken) bool { return f.chain.copied }); remote != errors.Is(err, ErrBusy) {
			m.fatalf("Translate: %v, chains taken by message: %v", err, remote)
		}
		m.note("translate: %v", err)
		m.gen = m.g.r.Generation()
		return
	}
	state, err := m.q.State()
	if busy := len(m.flight)+len(m.pushed) > 0; busy != errors.Is(err, ErrBusy) {
		m.fatalf("State: %v, chains in flight: %v", err, busy)
	}
	if err != nil {
		return
	}
	remote := m.q.mem != nil
	m.q, _ = New(m.cfg)
	must(m.t, m.q.Restore(state))
	if remote {
		m.q.SetRemote(m.g)
	}
	m.note("restored at %#x", state)
	m.counts.moves++
}
