package engine

// dataPath keeps the calls of Device.LockDataPath in order: one at a time, each
// answered before the next. It lives on the reactor.
type dataPath struct {
	session *Session
	held    bool
	busy    bool   // the device has not called done yet
	steps   []step // what comes next, the current one first
}

type step struct {
	hold bool
	then func()
}

// hold calls then when the data path holds still.
func (p *dataPath) hold(then func()) { p.add(step{true, then}) }

// release calls then when the device was told that the data path may go on.
func (p *dataPath) release(then func()) { p.add(step{false, then}) }

func (p *dataPath) add(st step) {
	p.steps = append(p.steps, st)
	p.advance()
}

func (p *dataPath) advance() {
	for !p.busy && len(p.steps) > 0 {
		st := p.steps[0]
		if st.hold == p.held {
			p.steps = p.steps[1:]
			st.then()
			continue
		}
		p.busy = true
		s := p.session
		answered := false
		done := func() {
			if answered {
				return
			}
			answered = true
			p.busy, p.held = false, st.hold
			p.advance()
		}
		if !s.created { // without a device there is no data path
			done()
			continue
		}
		p.ask(st.hold, func() { s.Post(done) })
	}
}

// ask calls the device. One that panics has no data path that could be waited for.
func (p *dataPath) ask(hold bool, done func()) {
	s := p.session
	defer func() {
		if v := recover(); v != nil {
			s.contain(v)
			done()
		}
	}()
	s.ep.device.LockDataPath(s, hold, done)
}
