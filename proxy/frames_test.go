package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// frame is a WebSocket frame with the shortest length that holds the payload
// (RFC 6455, section 5.2). first is FIN, the reserved bits and the opcode.
func frame(first byte, masked bool, payload string) []byte {
	n := len(payload)
	b := []byte{first, 0}
	switch {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	b[1] |= 0x80
	mask := []byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, mask...)
	for i := range n {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// boundaries is a reader of frames as simple as can be: where they end, and
// behind which of them the first close frame lies. -1: none.
func boundaries(p []byte) (ends []int, closed int) {
	closed = -1
	for at := 0; at+2 <= len(p); {
		header, length := 2, uint64(p[at+1]&0x7f)
		if length == 126 {
			header = 4
		} else if length == 127 {
			header = 10
		}
		if p[at+1] >= 0x80 {
			header += 4
		}
		if at+header > len(p) {
			break
		}
		if length == 126 {
			length = uint64(p[at+2])<<8 + uint64(p[at+3])
		} else if length == 127 {
			length = 0
			for _, b := range p[at+2 : at+10] {
				length = length<<8 + uint64(b)
			}
		}
		if length > uint64(len(p)-at-header) {
			break
		}
		opcode := p[at] % 16
		at += header + int(length)
		ends = append(ends, at)
		if opcode == 8 && closed < 0 {
			closed = at
		}
	}
	return ends, closed
}

// FuzzFrames: however the bytes are cut, the ends of frames are found where they
// are, and nowhere else.
func FuzzFrames(f *testing.F) {
	var all []byte
	for i, n := range []int{0, 1, 125, 126, 127, 300, 0} {
		all = append(all, frame(0x81+byte(i%2), i%2 == 0, string(make([]byte, n)))...)
	}
	all = append(all, frame(0x01, false, "half")...)
	all = append(all, frame(0x89, true, "ping")...)
	all = append(all, frame(0x80, false, "other half")...)
	all = append(all, frame(0x88, true, "\x03\xe8")...)
	all = append(all, frame(0x81, true, "late")...)
	f.Add(all, uint64(1))
	f.Add(all[:len(all)-3], uint64(2))
	f.Add([]byte{0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x88, 0x00}, uint64(3))
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 0x88, 0x00, 0x88}, uint64(4))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint64(5))
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		want, closed := boundaries(p)
		random := rand.New(rand.NewPCG(seed, 0))
		var one, many frames
		var got []int
		for at := 0; at < len(p); {
			start := at
			cut := min(len(p), at+1+random.IntN([]int{1, 3, 20, 1 + len(p)}[random.IntN(4)]))
			for part := p[at:cut]; len(part) > 0; {
				n := one.next(part)
				if n == 0 {
					t.Fatalf("no progress at %d", at)
				}
				at, part = at+n, part[n:]
				if one.between() {
					got = append(got, at)
				}
				if one.closed != (closed >= 0 && at >= closed) {
					t.Fatalf("closed at %d: %v, want from %d on", at, one.closed, closed)
				}
			}
			many.skip(p[start:cut])
			if _, is := slices.BinarySearch(want, cut); many.between() != is || many.between() != one.between() {
				t.Fatalf("between at %d: %v, want %v", cut, many.between(), is)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("frames end at %v, want %v", got, want)
		}
	})
}

// TestFramesAtEveryCut: the same with the bytes cut in two at every position.
func TestFramesAtEveryCut(t *testing.T) {
	var all []byte
	for i, n := range []int{0, 5, 126, 70000, 3} {
		all = append(all, frame(0x82, i%2 == 1, string(make([]byte, n)))...)
	}
	want, _ := boundaries(all)
	if len(want) != 5 || want[4] != len(all) {
		t.Fatalf("the reference found %v", want)
	}
	for cut := range len(all) + 1 {
		var f frames
		f.skip(all[:cut])
		if _, is := slices.BinarySearch(want, cut); f.between() != (is || cut == 0) {
			t.Fatalf("between at %d: %v", cut, f.between())
		}
		f.skip(all[cut:])
		if !f.between() || f.closed {
			t.Fatalf("cut at %d: not between frames at the end", cut)
		}
	}
}

// TestCloseFrames holds ours against a reader that knows nothing of them.
func TestCloseFrames(t *testing.T) {
	if got, want := closeFrame(4401, "logout"), frame(0x88, false, "\x11\x31logout"); !bytes.Equal(got, want) {
		t.Errorf("to a browser: %x, want %x", got, want)
	}
	masks := map[string]bool{}
	for range 50 {
		got := maskedCloseFrame(1001)
		if len(got) != 8 || got[0] != 0x88 || got[1] != 0x82 || got[6]^got[2] != 0x03 || got[7]^got[3] != 0xe9 {
			t.Fatalf("to an upstream: %x", got)
		}
		masks[string(got[2:6])] = true
	}
	if len(masks) < 45 {
		t.Errorf("RFC 6455, section 5.3: 50 frames have %d masks", len(masks))
	}
}

// sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkHalf measures what it costs to know where frames end, per Write:
// "bare" is the Write without us.
func BenchmarkHalf(b *testing.B) {
	small := frame(0x81, true, string(make([]byte, 100)))
	big := frame(0x82, false, string(make([]byte, 32<<10)))
	writer := func(f ...[]byte) (io.Writer, []byte) {
		t := newTunnel(nil, b.Context())
		t.toUpstream.connect(sink{})
		t.toUpstream.begin()
		return &t.toUpstream, slices.Concat(f...)
	}
	for name, f := range map[string][]byte{
		"1 frame of 100 bytes":   small,
		"10 frames of 100 bytes": bytes.Repeat(small, 10),
		"a frame of 32 KiB":      big,
	} {
		b.Run(name, func(b *testing.B) {
			w, p := writer(f)
			b.ReportAllocs()
			for b.Loop() {
				w.Write(p)
			}
		})
		b.Run(name+", bare", func(b *testing.B) {
			var w io.Writer = sink{}
			for b.Loop() {
				w.Write(f)
			}
		})
	}
}
