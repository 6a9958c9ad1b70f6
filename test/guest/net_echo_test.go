package guest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// echoPort is where a guest sends back what comes, by TCP and by UDP.
const echoPort = 7

// startEcho has the guest send back what comes.
func startEcho(t *testing.T, g *Guest) {
	t.Helper()
	run(t, g, fmt.Sprintf(`
socat TCP6-LISTEN:%d,ipv6only=0,reuseaddr,backlog=16,fork EXEC:cat,nofork > /dev/null 2>&1 &
socat UDP6-RECVFROM:%[1]d,ipv6only=0,fork PIPE > /dev/null 2>&1 &
for i in $(seq 50); do
  [ $(ss -Hln 'sport = %[1]d' | wc -l) -ge 2 ] && exit
  sleep 0.1
done
ss -ln; exit 1`, echoPort))
}

// random fills p with bytes that repeat nowhere.
func random(seed uint64, p []byte) {
	rand.NewChaCha8([32]byte{byte(seed)}).Read(p)
}

// checkEcho sends so many bytes to the guest by TCP, in streams at the same time, and
// compares what comes back.
func checkEcho(t *testing.T, h *host, address string, streams, size int) {
	t.Helper()
	failed := make(chan error)
	for i := range streams {
		go func() { failed <- h.echo(address, uint64(i), size) }()
	}
	for range streams {
		if err := <-failed; err != nil {
			t.Errorf("echo from %s: %v", address, err)
		}
	}
}

// echo has one stream echoed.
func (h *host) echo(address string, seed uint64, size int) error {
	conn, err := h.Dial("tcp", net.JoinHostPort(address, fmt.Sprint(echoPort)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(scriptTimeout)); err != nil {
		return err
	}
	sent, came := make([]byte, size), make([]byte, size)
	random(seed, sent)
	writing := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		writing <- err
	}()
	n, err := io.ReadFull(conn, came)
	if err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
	}
	for i := range came {
		if came[i] != sent[i] {
			return fmt.Errorf("byte %d of %d came back wrong", i, size)
		}
	}
	return <-writing
}

// checkDatagrams has datagrams of all kinds of sizes echoed, those that take several frames
// among them.
func checkDatagrams(t *testing.T, h *host, address string) {
	t.Helper()
	conn, err := h.Dial("udp", net.JoinHostPort(address, fmt.Sprint(echoPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent, came := make([]byte, 1<<16), make([]byte, 1<<16)
	for i, size := range []int{1, 2, 17, 18, 19, 100, 511, 1471, 1472, 1473, 3000, 8000} {
		random(uint64(i), sent[:size])
		if _, err := conn.Write(sent[:size]); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := conn.Read(came)
		if err != nil || !bytes.Equal(came[:n], sent[:size]) {
			t.Errorf("a datagram of %d bytes to %s: %d came back (%v)", size, address, n, err)
		}
	}
}

// checkSegmentedUDP has the guest send datagrams in one piece that the card, or what is behind
// it, is to cut (UDP_SEGMENT).
func checkSegmentedUDP(t *testing.T, g *Guest, h *host, hostAddress string) {
	t.Helper()
	const port, segment, segments = 5010, 1000, 8
	to, family := net.JoinHostPort(hostAddress, fmt.Sprint(port)), "UDP4"
	if strings.HasPrefix(to, "[") {
		family = "UDP6"
	}
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// (level 17 is UDP, option 103 UDP_SEGMENT)
	run(t, g, fmt.Sprintf(`
seq 10000 | head -c %d > /tmp/segments
socat -u -b %[1]d OPEN:/tmp/segments %[2]s-SENDTO:%[3]s,setsockopt=17:103:i%[4]d`, segments*segment, family, to, segment))
	var sent, came []byte
	for i := 1; len(sent) < segments*segment; i++ {
		sent = fmt.Appendf(sent, "%d\n", i)
	}
	p := make([]byte, 1<<16)
	for range segments {
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := conn.ReadFrom(p)
		if err != nil || n != segment {
			t.Fatalf("a datagram of %d bytes came (%v), want %d", n, err, segment)
		}
		came = append(came, p[:n]...)
	}
	if !bytes.Equal(came, sent[:len(came)]) {
		t.Error("what came is not what was sent")
	}
}
