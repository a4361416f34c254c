package gatewaytest

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that a test starts, treats as badly as it likes, and starts
// again. It dies with the test. One that ends by itself fails the test.
type Process struct {
	t       testing.TB
	name    string
	command func() *exec.Cmd

	mu  sync.Mutex // guards run
	run *run       // nil: it does not run
}

// run is one life of a process.
type run struct {
	cmd     *exec.Cmd
	done    chan struct{} // closed when it is over
	err     error         // of Wait; read it after done
	ordered bool          // somebody ended it; guarded by the process' mu
}

// ErrNotRunning: nobody is there who could be treated badly.
var ErrNotRunning = errors.New("gatewaytest: the process does not run")

// starts runs on one thread for ever, so that no process outlives this one: their
// death is tied to the thread that began them.
var starts = sync.OnceValue(func() chan func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return todo
})

// newProcess describes a process that command starts.
func newProcess(t testing.TB, name string, command func() *exec.Cmd) Process {
	return Process{t: t, name: name, command: command}
}

// launch starts the program and waits for nothing.
func (p *Process) launch() {
	p.t.Helper()
	r := &run{cmd: p.command(), done: make(chan struct{})}
	r.cmd.WaitDelay = 5 * time.Second
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil {
		p.t.Fatalf("%s runs already", p.name)
	}
	started := make(chan error)
	starts() <- func() { started <- r.cmd.Start() }
	if err := <-started; err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	p.run = r
	go p.watch(r)
}

// watch takes down how the process ends.
func (p *Process) watch(r *run) {
	err := r.cmd.Wait()
	p.mu.Lock()
	r.err = err
	if !r.ordered {
		p.t.Errorf("%s ended by itself: %v", p.name, err)
	}
	if p.run == r {
		p.run = nil
	}
	p.mu.Unlock()
	close(r.done)
}

// signal sends a signal. With ordered the process may end by it.
func (p *Process) signal(s syscall.Signal, ordered bool) (*run, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil, ErrNotRunning
	}
	p.run.ordered = p.run.ordered || ordered
	return p.run, p.run.cmd.Process.Signal(s)
}

// Kill ends the process at once, as a power cut does. It may stand still.
func (p *Process) Kill() {
	p.t.Helper()
	r, err := p.signal(syscall.SIGKILL, true)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	<-r.done
}

// Pause lets the process stand still, as a virtual machine that is moved: its
// connections stay, and nobody answers.
func (p *Process) Pause() {
	p.t.Helper()
	if _, err := p.signal(syscall.SIGSTOP, false); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// Resume lets a process go on that stands still.
func (p *Process) Resume() {
	p.t.Helper()
	if _, err := p.signal(syscall.SIGCONT, false); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// Stop asks the process to end, and fails the test if it does not end well.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.Terminate()(); err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
}

// stopPatience is how long a process may take to end that was asked to.
const stopPatience = 20 * time.Second

// Terminate asks the process to end. The function it returns waits until it has,
// and tells how.
func (p *Process) Terminate() (wait func() error) {
	p.t.Helper()
	r, err := p.signal(syscall.SIGTERM, true)
	if err != nil {
		return func() error { return err }
	}
	kill := time.AfterFunc(stopPatience, func() { r.cmd.Process.Kill() })
	return func() error {
		<-r.done
		kill.Stop()
		return r.err
	}
}

// Running tells whether the process runs, be it that it stands still.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run != nil
}

// PID is the process id, 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return 0
	}
	return p.run.cmd.Process.Pid
}
