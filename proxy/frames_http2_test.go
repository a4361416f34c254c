package proxy

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawHTTP2 is a client that sends any frame it likes.
type rawHTTP2 struct {
	t  testing.TB
	c  net.Conn
	fr *http2.Framer
	id uint32 // of the next stream
}

// dialHTTP2 connects as a trusted balancer without TLS, which may send the same as
// a browser with it.
func dialHTTP2(t testing.TB, addr string) *rawHTTP2 {
	t.Helper()
	c := must(net.Dial("tcp", addr))
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.AllowIllegalWrites = true
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.WriteSettings()
	return &rawHTTP2{t, c, fr, 1}
}

// field is one line of a header, as it is encoded.
type field struct{ name, value string }

// send sends a request: its fields, and its body unless that is "".
func (h *rawHTTP2) send(fields []field, body string) (stream uint32) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		enc.WriteField(hpack.HeaderField{Name: f.name, Value: f.value})
	}
	stream = h.id
	h.id += 2
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		h.fr.WriteData(stream, true, []byte(body))
	}
	return stream
}

// answer is the status on a stream, "reset" or "goaway".
func (h *rawHTTP2) answer(stream uint32) string {
	h.t.Helper()
	for {
		f, err := h.fr.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.fr.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "goaway"
		}
	}
}

// TestHT09HTTP2 sends by HTTP/2 what would have another meaning in the HTTP/1.1
// that the upstream is sent (RFC 9113, sections 8.1.1, 8.2 and 8.3; ASVS 4.2.1 to
// 4.2.4). Behind each follows another user's request on the same connection.
func TestHT09HTTP2(t *testing.T) {
	up := newWireUpstream(t, nil)
	w := newWorld(t, func(_ *world, a *App, c *Config) {
		a.Routes = []Route{{Path: "/api/", Upstream: up.url()}}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	addr := w.h2cListener().Listener.Addr().String()
	other, token := w.login(time.Hour)
	request := func(method, path, cookie string, more ...field) []field {
		return append([]field{{":method", method}, {":scheme", "http"}, {":authority", testHost}, {":path", path}, {"cookie", cookie}, {"x-csrf", "1"}}, more...)
	}
	evil := func(more ...field) []field { return request("POST", "/api/evil", w.cookie, more...) }
	// with replaces a field of an ordinary request.
	with := func(name, value string) []field {
		fields := evil()
		for i := range fields {
			if fields[i].name == name {
				fields[i].value = value
			}
		}
		return fields
	}
	without := func(name string, more ...field) []field {
		return append(slices.DeleteFunc(evil(), func(f field) bool { return f.name == name }), more...)
	}
	const split = "\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
	rows := []struct {
		name   string
		fields []field
		body   string
		want   string   // status or "reset"
		bodies []string // that the upstream saw
	}{
		{"an ordinary request", evil(), "abc", "200", []string{"abc"}},
		{"a length that is right", evil(field{"content-length", "3"}), "abc", "200", []string{"abc"}},
		{"a body that looks like requests", evil(), "0" + split, "200", []string{"0" + split}},
		{"a length of 0 and a body", evil(field{"content-length", "0"}), split, "reset|200", nil},
		{"a length that is too small", evil(field{"content-length", "2"}), "abc", "reset", nil},
		{"a length that is too great", evil(field{"content-length", "4"}), "abc", "reset", nil},
		{"a length without a body", evil(field{"content-length", "4"}), "", "400", nil},
		{"a length that is no number", evil(field{"content-length", "x"}), "abc", "400|reset", nil},
		{"a length with a plus", evil(field{"content-length", "+3"}), "abc", "400|reset", nil},
		{"two lengths", evil(field{"content-length", "3"}, field{"content-length", "99"}), "abc", "400", nil},
		{"the same length twice", evil(field{"content-length", "3"}, field{"content-length", "3"}), "abc", "400", nil},
		{"Transfer-Encoding", evil(field{"transfer-encoding", "chunked"}), "0" + split, "400", nil},
		{"Transfer-Encoding and a length", evil(field{"transfer-encoding", "chunked"}, field{"content-length", "3"}), "abc", "400", nil},
		{"Connection", evil(field{"connection", "authorization"}), "abc", "400", nil},
		{"Proxy-Connection", evil(field{"proxy-connection", "keep-alive"}), "abc", "400", nil},
		{"Keep-Alive", evil(field{"keep-alive", "1"}), "abc", "400", nil},
		{"Upgrade", evil(field{"upgrade", "websocket"}), "abc", "400", nil},
		{"TE of anything but trailers", evil(field{"te", "gzip"}), "abc", "400", nil},
		{"CR and LF in a value", evil(field{"x-a", "b" + split}), "abc", "reset", nil},
		{"LF in a value", evil(field{"x-a", "b\nX-B: c"}), "abc", "reset", nil},
		{"CR in a value", evil(field{"x-a", "b\rX-B: c"}), "abc", "reset", nil},
		{"NUL in a value", evil(field{"x-a", "b\x00"}), "abc", "reset", nil},
		{"CR and LF in a name", evil(field{"x-a: b\r\nx-b", "c"}), "abc", "reset", nil},
		{"a colon in a name", evil(field{"x-a: b", "c"}), "abc", "reset", nil},
		{"a space in a name", evil(field{"transfer-encoding ", "chunked"}), "abc", "reset", nil},
		{"an empty name", evil(field{"", "c"}), "abc", "reset", nil},
		{"a name in capitals", evil(field{"X-A", "b"}), "abc", "reset", nil},
		{"CR and LF in :path", with(":path", "/api/evil HTTP/1.1"+split), "abc", "reset", nil},
		{"a space in :path", with(":path", "/api/evil HTTP/1.1"), "abc", "400", nil},
		{"a space in the query", with(":path", "/api/evil? HTTP/1.1"), "abc", "400", nil},
		{"a tab in :path", with(":path", "/api/evil\tHTTP/1.1"), "abc", "reset", nil},
		{"a fragment in :path", with(":path", "/api/evil#x"), "abc", "400", nil},
		{"a URL in :path", with(":path", "http://evil.example/api/evil"), "abc", "200", nil},
		{"another host in :path", with(":path", "//evil.example/api/evil"), "abc", "400", nil},
		{"a :path without a slash", with(":path", "api/evil"), "abc", "reset", nil},
		{"an empty :path", with(":path", ""), "abc", "reset", nil},
		{"the asterisk", with(":path", "*"), "abc", "400", nil},
		{"no :path", without(":path"), "abc", "reset", nil},
		{"two of :path", evil(field{":path", "/api/smuggled"}), "abc", "reset", nil},
		{"a pseudo-header behind a field", without(":path", field{":path", "/api/evil"}), "abc", "reset", nil},
		{"a pseudo-header that there is not", append([]field{{":evil", "x"}}, evil()...), "abc", "reset", nil},
		{"the pseudo-header of answers", append([]field{{":status", "200"}}, evil()...), "abc", "reset", nil},
		{":protocol", append([]field{{":protocol", "websocket"}}, evil()...), "abc", "reset", nil},
		{"a space in :method", with(":method", "GET /api/smuggled HTTP/1.1"), "abc", "405", nil},
		{"CR and LF in :method", with(":method", "GET /api/smuggled HTTP/1.1\r\nX: "), "abc", "reset", nil},
		{"an empty :method", with(":method", ""), "abc", "reset", nil},
		{"CONNECT", []field{{":method", "CONNECT"}, {":authority", testHost}}, "", "405", nil},
		{"CONNECT with a path", with(":method", "CONNECT"), "abc", "reset", nil},
		{"another :scheme", with(":scheme", "ftp"), "abc", "reset", nil},
		{"a :scheme with a path", with(":scheme", "http://evil.example/?"), "abc", "reset", nil},
		{"a foreign :authority", with(":authority", "evil.example"), "abc", "421", nil},
		{"a user in :authority", with(":authority", "shop.example.com@evil.example"), "abc", "reset", nil},
		{"a path in :authority", with(":authority", testHost+"/api"), "abc", "400", nil},
		{"a space in :authority", with(":authority", testHost+" x"), "abc", "400", nil},
		{"CR and LF in :authority", with(":authority", testHost+"\r\nX: y"), "abc", "reset", nil},
		{"Host beside :authority", evil(field{"host", "evil.example"}), "abc", "400", nil},
		{"the same Host beside :authority", evil(field{"host", testHost}), "abc", "200", []string{"abc"}},
		{"Host in place of :authority", without(":authority", field{"host", testHost}), "abc", "200", []string{"abc"}},
		{"two hosts in place of :authority", without(":authority", field{"host", testHost}, field{"host", "evil.example"}), "abc", "400", nil},
		{"a foreign Host in place of :authority", without(":authority", field{"host", "evil.example"}), "abc", "421", nil},
		{"no host", without(":authority"), "abc", "421", nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := dialHTTP2(t, addr)
			got := h.answer(h.send(append(row.fields, field{"x-row", row.name}), row.body))
			// What is no field at all is reset; data that follows it ends the connection.
			if !slices.Contains(strings.Split(row.want, "|"), got) && !(row.want == "reset" && got == "goaway") {
				t.Errorf("answer %s, want %s", got, row.want)
			}
			after := h.answer(h.send(request("GET", "/api/after", other), ""))
			if after == "goaway" || after == "closed" {
				h = dialHTTP2(t, addr)
				after = h.answer(h.send(request("GET", "/api/after", other), ""))
			}
			if after != "200" {
				t.Errorf("the other user's request: %s, want 200", after)
			}
		})
	}
	// What was reset may reach the upstream after its reset has reached us: so each
	// message tells its row, and all are looked at in the end.
	saw := map[string][]string{}
	for _, m := range up.messages(true) {
		head, _, _ := strings.Cut(m, "\r\n\r\n")
		mine, others := strings.Contains(head, "\r\nAuthorization: Bearer "+w.token+"\r\n"), strings.Contains(head, "\r\nAuthorization: Bearer "+token+"\r\n")
		_, name, _ := strings.Cut(head, "\r\nX-Row: ")
		name, _, _ = strings.Cut(name, "\r\n")
		switch {
		case strings.HasPrefix(m, "GET /api/after HTTP/1.1\r\n") && others && !mine:
		case strings.HasPrefix(m, "POST /api/evil HTTP/1.1\r\n") && mine && !others && name != "":
			saw[name] = append(saw[name], bodyOf(m))
		default:
			t.Errorf("the upstream saw %q", m)
		}
	}
	for _, row := range rows {
		switch row.name {
		case "a URL in :path": // as an absolute target it is read for its path alone
			continue
		case "a length of 0 and a body": // a request without a body is complete before the body comes
			if slices.Equal(saw[row.name], []string{""}) {
				continue
			}
		}
		if !slices.Equal(saw[row.name], row.bodies) {
			t.Errorf("%s: the upstream saw bodies %q, want %q", row.name, saw[row.name], row.bodies)
		}
	}
}
