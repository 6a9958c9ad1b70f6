package bench

import (
	"fmt"

	driver "vfiouser/drivers/virtio-net"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

// traffic is frames through virtio-net cards.
type traffic struct {
	way    string // null: sent to a link that takes everything; rx: received from one that has always something; loop; switch
	packed bool
	size   int // of a frame, bytes
	batch  int // frames that are sent or received at a time
	set    set
}

var frameSizes = []int{64, 512, 1518, segment}

var ways = []string{"null", "rx", "loop", "switch"}

// traffics are all ways, sizes, layouts and batches.
func traffics() (all []traffic) {
	for _, way := range ways {
		for _, packed := range []bool{false, true} {
			for _, size := range frameSizes {
				for _, batch := range []int{1, 8, 32, 128} {
					t := traffic{way: way, packed: packed, size: size, batch: batch, set: full}
					switch {
					case way == "loop" && batch == 32 && (packed && size != 512 || size == 64), way == "null" && packed && size == 64 && batch == 32:
						t.set = quick
					case batch == 32 && (packed || size == 64 || size == segment), batch == 1 && packed && size == 64:
						t.set = byDefault
					}
					all = append(all, t)
				}
			}
		}
	}
	return all
}

func (t traffic) String() string {
	layout := "split"
	if t.packed {
		layout = "packed"
	}
	return fmt.Sprintf("virtio-net/%s/%s/size=%d/batch=%d", t.way, layout, t.size, t.batch)
}

// trafficCases are packets with the card on one core and the driver on the other; of a switch,
// with both cards on one core and both drivers on the other. See frameHandover for the limits.
func trafficCases() (cases []Case) {
	for _, t := range traffics() {
		cases = append(cases, Case{
			Name: t.String(), Quick: t.set == quick, Full: t.set == full, Bytes: t.size, Limit: t.handover().String(),
			Setup: func(env *Env) (Subject, error) {
				_, s, err := newTraffic(env, t)
				return s, err
			},
		})
	}
	return cases
}

func newTraffic(env *Env, t traffic) ([]*card, Subject, error) {
	var links []link.Link
	switch t.way {
	case "null":
		links = []link.Link{link.Null()}
	case "rx":
		links = []link.Link{newSource(t.size)}
	case "loop":
		links = []link.Link{link.Loop()}
	case "switch":
		s := link.NewSwitch(link.SwitchConfig{})
		links = []link.Link{s, s}
	}
	cards, err := newCards(env, links, t.packed, t.size)
	if err != nil {
		return nil, Subject{}, err
	}
	last := len(cards) - 1
	if last > 0 {
		if err := introduce(cards); err != nil {
			return nil, Subject{}, err
		}
	}
	header, err := cards[0].prepare(t.size, 0, last)
	if err != nil {
		return nil, Subject{}, err
	}
	p := &passage{traffic: t, header: header, out: make([]*driver.Buffer, t.batch), in: make([]*driver.Buffer, t.batch)}
	if t.way != "rx" {
		p.from = cards[0]
	}
	if t.way != "null" {
		p.to = cards[last]
	}
	// Once through all buffers.
	return cards, Subject{Run: p.run, UnderWay: p.room()}, p.run(2 * frameBuffers)
}

// passage is frames on their way from card to card; where one is nil, from somewhere or to
// nowhere.
type passage struct {
	traffic
	from, to *card
	header   vnet.Header
	out, in  []*driver.Buffer
}

// room is how many frames may be under way: a switch drops what finds no room in the receive
// queue's buffers.
func (p *passage) room() int {
	if p.size == segment {
		return segmentBuffers
	}
	return frameBuffers
}

// run sends and receives n frames.
func (p *passage) run(n int) error {
	room := p.room()
	for sent, received := 0, 0; min(sent, received) < n; {
		want := min(p.batch, n-sent)
		if p.to != nil {
			want = min(want, room-(sent-received))
		}
		switch {
		case p.from == nil:
			sent = n
		case want > 0:
			k, err := p.from.send(p.out[:want], p.size, p.header)
			if err != nil {
				return err
			}
			sent += k
		}
		if p.to == nil {
			received = n
			continue
		}
		k, err := p.to.receive(p.in[:min(p.batch, n-received)], p.size)
		if err != nil {
			return err
		}
		received += k
	}
	return nil
}
