package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// wireUpstream keeps every byte that it is sent, and answers each request with
// answer.
type wireUpstream struct {
	t      testing.TB
	addr   string
	answer func(conn net.Conn, message string) (open bool)

	mu    sync.Mutex // guards what follows
	conns []*bytes.Buffer
	open  []net.Conn
}

// newWireUpstream answers 200 "ok", unless there is another answer.
func newWireUpstream(t testing.TB, answer func(conn net.Conn, message string) bool) *wireUpstream {
	if answer == nil {
		answer = func(c net.Conn, _ string) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return true
		}
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	u := &wireUpstream{t: t, addr: l.Addr().String(), answer: answer}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := &bytes.Buffer{}
			u.mu.Lock()
			u.conns, u.open = append(u.conns, b), append(u.open, c)
			u.mu.Unlock()
			work.Go(func() { defer c.Close(); u.serve(c, b) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		u.mu.Lock()
		for _, c := range u.open {
			c.Close()
		}
		u.mu.Unlock()
		work.Wait()
	})
	return u
}

func (u *wireUpstream) url() *url.URL { return must(url.Parse("http://" + u.addr)) }

// serve reads one message after the other by a parser of our own, which knows no
// leniency.
func (u *wireUpstream) serve(c net.Conn, all *bytes.Buffer) {
	r := bufio.NewReader(io.TeeReader(c, lockedWriter{&u.mu, all}))
	for {
		message, err := readStrictly(r)
		if err == io.EOF {
			return
		}
		if err != nil {
			u.t.Logf("the upstream gave up on %q: %v", message, err)
			return
		}
		if !u.answer(c, message) {
			return
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// bytes is what came, connection by connection.
func (u *wireUpstream) bytes() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []string
	for _, b := range u.conns {
		all = append(all, b.String())
	}
	return all
}

// forget drops what came before on connections that stay open.
func (u *wireUpstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, b := range u.conns {
		b.Reset()
	}
}

// messages are the requests in what came; a part of one is an error, unless
// broken allows it at the end of a connection.
func (u *wireUpstream) messages(broken bool) (all []string) {
	u.t.Helper()
	for _, conn := range u.bytes() {
		r := bufio.NewReader(strings.NewReader(conn))
		for {
			m, err := readStrictly(r)
			if err == io.EOF {
				break
			}
			if err != nil {
				if !broken {
					u.t.Errorf("the upstream was sent %q: %v", conn, err)
				}
				break
			}
			all = append(all, m)
		}
	}
	return all
}

var (
	requestLine = regexp.MustCompile("^[A-Z]+ /[!-~]* HTTP/1\\.1\r\n$")
	fieldLine   = regexp.MustCompile("^[A-Za-z0-9-]+: [ -~\t]*\r\n$")
	chunkLine   = regexp.MustCompile("^[0-9a-f]+\r\n$")
)

// readStrictly reads a request as RFC 9112 writes it, with one framing and one host,
// and nothing that two parsers could read in two ways. It returns the bytes. io.EOF:
// there is none.
func readStrictly(r *bufio.Reader) (message string, err error) {
	var b strings.Builder
	line := func() (string, error) {
		s, err := r.ReadString('\n')
		b.WriteString(s)
		if err == io.EOF && b.Len() > 0 {
			err = io.ErrUnexpectedEOF
		}
		return s, err
	}
	first, err := line()
	if err != nil {
		return b.String(), err
	}
	if !requestLine.MatchString(first) {
		return b.String(), fmt.Errorf("request line %q", first)
	}
	fields := map[string][]string{}
	for {
		s, err := line()
		if err != nil {
			return b.String(), err
		}
		if s == "\r\n" {
			break
		}
		if !fieldLine.MatchString(s) {
			return b.String(), fmt.Errorf("field line %q", s)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(s, "\r\n"), ": ")
		name = textproto.CanonicalMIMEHeaderKey(name)
		fields[name] = append(fields[name], value)
	}
	length, coding := fields["Content-Length"], fields["Transfer-Encoding"]
	switch {
	case len(fields["Host"]) != 1:
		return b.String(), fmt.Errorf("hosts %q", fields["Host"])
	case len(length) > 1 || len(length) > 0 && len(coding) > 0 || len(coding) > 0 && !slices.Equal(coding, []string{"chunked"}):
		return b.String(), fmt.Errorf("lengths %q and codings %q", length, coding)
	case len(length) > 0:
		n, err := strconv.ParseUint(length[0], 10, 32)
		if err != nil {
			return b.String(), err
		}
		_, err = io.CopyN(&b, r, int64(n))
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return b.String(), err
	case len(coding) > 0:
		for {
			s, err := line()
			if err != nil {
				return b.String(), err
			}
			if !chunkLine.MatchString(s) {
				return b.String(), fmt.Errorf("chunk line %q", s)
			}
			n, _ := strconv.ParseUint(strings.TrimSuffix(s, "\r\n"), 16, 32)
			if _, err := io.CopyN(&b, r, int64(n)); err != nil {
				return b.String(), io.ErrUnexpectedEOF
			}
			if end, err := line(); err != nil || end != "\r\n" {
				return b.String(), fmt.Errorf("the end of a chunk %q, %v", end, err)
			}
			if n == 0 {
				return b.String(), nil
			}
		}
	}
	return b.String(), nil
}

// bodyOf is the body of a message that readStrictly has read.
func bodyOf(message string) string {
	head, body, _ := strings.Cut(message, "\r\n\r\n")
	if !strings.Contains(head, "\r\nTransfer-Encoding: chunked") {
		return body
	}
	var all strings.Builder
	for {
		size, rest, _ := strings.Cut(body, "\r\n")
		n, err := strconv.ParseUint(size, 16, 32)
		if err != nil || n == 0 {
			return all.String()
		}
		all.WriteString(rest[:n])
		body = rest[n+2:]
	}
}

// talk sends bytes on a connection of their own and returns all that comes back
// until the gateway closes it, or falls silent after as many answers as there are.
func (w *world) talk(request string) (answers []answered, closed bool) {
	w.t.Helper()
	c := w.dial()
	defer c.Close()
	io.WriteString(c, request)
	r := bufio.NewReader(c)
	for {
		// A gateway that waits for more does not answer: half a second is long for it.
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := r.Peek(1); err != nil {
			return answers, err == io.EOF || strings.Contains(err.Error(), "reset")
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return answers, true
		}
		body, err := io.ReadAll(res.Body)
		answers = append(answers, answered{res, string(body)})
		if err != nil {
			return answers, true
		}
	}
}
