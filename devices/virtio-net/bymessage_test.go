package virtionet

import (
	"testing"
	"time"

	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// A client that does not answer a message keeps nobody waiting who has frames for its card: that
// is another guest's worker, or the reactor of all of them.
func TestSilentClientKeepsNoSenderWaiting(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	p := newProxy(t, r.ep.Path())
	// The first thing that is written is the receive queue's wish for notifications.
	p.holdNext(isWrite(0))
	g := r.attach(options{byMessage: true, socket: p.path})
	<-p.held
	data := frameOf(1, 100)
	taken := make(chan int)
	go func() { taken <- r.link.Card().Receive(0, linktest.Frames(data)) }()
	select {
	case <-taken:
	case <-time.After(5 * time.Second):
		t.Error("the sender waits for the receiver's client")
		p.letGo()
		<-taken
	}
	p.letGo()
	g.pairs[0].send(vnet.Header{}, data)
	r.arrive(0, data)
	g.pairs[0].receive(1)
}

// A sender's memory that goes while a frame is copied for a receiver by message, whose goroutine
// is just delivering another one.
func TestSendersMemoryGoesWhileTheReceiverDelivers(t *testing.T) {
	holdings.CheckLeaks(t)
	sw := link.NewSwitch(link.SwitchConfig{})
	eng, err := engine.New(engine.Config{Workers: 1})
	must(t, err)
	t.Cleanup(func() { eng.Close() })
	to, from, bad := mac(1), mac(2), mac(3)
	r := newRigOn(t, eng, Config{Link: sw, MAC: to[:]})
	proxy := newProxy(t, r.ep.Path())
	receiver := r.attach(options{features: all, buffers: 4, byMessage: true, socket: proxy.path})
	receiver.pairs[0].send(vnet.Header{}, packet{dst: string(broadcast[:]), src: string(to[:]), payload: 46}.frame())
	sender := newRigOn(t, eng, Config{Link: sw, MAC: from[:]}).attach(options{features: all})
	var want [][]byte
	send := func() {
		data := packet{dst: string(to[:]), src: string(from[:]), payload: 300 + len(want)}.frame()
		want = append(want, data)
		sender.pairs[0].send(vnet.Header{}, data)
	}
	proxy.holdNext(isWrite(300)) // a frame on its way to its buffer
	send()
	<-proxy.held
	g := newRigOn(t, eng, Config{Link: sw, MAC: bad[:]}).attach(options{features: all})
	g.share().truncate()
	g.sendHalf(packet{dst: string(to[:]), src: string(bad[:])}.frame())
	g.lost()
	proxy.letGo()
	for range 6 {
		send()
	}
	equal(t, receiver.pairs[0].receive(len(want)), want...)
}
