// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"cmp"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"
)

// DefaultInterval is the time between two looks at the files. Watching directories
// tells of nearly all changes at once; polling is for what it does not see, such as
// network file systems. Kubernetes' controller-runtime polls certificates as often.
const DefaultInterval = 10 * time.Second

// gather is how long after a change is noticed the files are looked at: a change seldom
// comes alone. It begins with the first of them, so a stream of changes starves nobody.
const gather = 20 * time.Millisecond

// Options say how to watch. The zero value watches directories and polls.
type Options struct {
	// Interval is the time between two looks at the files, whether or not something
	// was noticed; 0 is DefaultInterval, and a negative one means none.
	Interval time.Duration

	// SIGHUP looks at the files whenever the process gets that signal, from before
	// Watch reads them until Close. Where the system has no such signal, it does nothing.
	SIGHUP bool

	// Passphrase returns the passphrase of an encrypted private key; it is called
	// each time that such a file is new, or still at fault, never from two goroutines of a
	// Watcher at once. What it returns is neither changed nor kept. While it waits,
	// nothing is swapped, and Close waits too. It must not call the Watcher. If it is
	// nil, an encrypted key is a fault.
	Passphrase func(file string) ([]byte, error)

	// Logger is slog.Default if nil. Swaps and recoveries are logged at Info, faults at
	// Error, each once, and at Warn what is taken but should be looked at.
	Logger *slog.Logger
}

var (
	errClosed    = errors.New("reload: the Watcher is closed")
	errNoSources = errors.New("reload: there is nothing to watch; give at least one Source")
)

// A Watcher keeps what its Sources feed as the files say. Its methods may be called
// from any goroutine.
type Watcher struct {
	sources    []Source
	passphrase func(string) ([]byte, error)
	logger     *slog.Logger

	notify  notifier // nil if directories are not watched
	signals chan os.Signal
	changes chan struct{} // by notify; what does not fit is another of the same
	ticker  *time.Ticker
	stop    chan struct{}
	closing sync.Once
	running sync.WaitGroup

	mu     sync.Mutex // makes looks one after the other, and guards:
	states map[any]*state
	polled bool // it was logged that directories cannot be watched
}

// A notifier tells of changes in directories.
type notifier interface {
	// watch makes the paths what is watched, and reports whether a directory among
	// them was not watched until now: what happened in it before was not noticed.
	watch(paths []string) (added bool, err error)

	// close ends the notifier, and waits for it.
	close()
}

// Watch reads the files of all sources, feeds them, and goes on doing so until
// [Watcher.Close].
//
// If any file is bad, the error says for each pair and pool what is wrong with it, each
// in a line of its own, and nothing was fed to anything. Only if a Store refuses
// what was found good a moment before, as when a certificate expires just then, other
// pairs are in.
//
// Of two sources that feed one id of one Store, the first given does, and the other is a
// fault: also when that is found in a [Directory] later.
func Watch(o Options, sources ...Source) (*Watcher, error) { return watch(o, newNotifier, sources) }

func watch(o Options, newNotifier func(chan<- struct{}) (notifier, error), sources []Source) (*Watcher, error) {
	if len(sources) == 0 {
		return nil, errNoSources
	}
	w := &Watcher{
		sources:    sources,
		passphrase: o.Passphrase,
		logger:     cmp.Or(o.Logger, slog.Default()),
		signals:    make(chan os.Signal, 1),
		changes:    make(chan struct{}, 1),
		stop:       make(chan struct{}),
		states:     make(map[any]*state),
	}
	if o.Interval < 0 {
		w.ticker = time.NewTicker(DefaultInterval)
		w.ticker.Stop()
	} else {
		w.ticker = time.NewTicker(cmp.Or(o.Interval, DefaultInterval))
	}
	if o.SIGHUP && len(reloadSignals) > 0 {
		signal.Notify(w.signals, reloadSignals...)
	}
	started := false
	defer func() {
		if !started { // or a function of the caller panics
			w.Close()
		}
	}()
	if err := w.start(newNotifier); err != nil {
		return nil, err
	}
	started = true
	w.running.Go(w.run)
	return w, nil
}

// start makes live what the files say, unless any is bad.
func (w *Watcher) start(newNotifier func(chan<- struct{}) (notifier, error)) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notify, err = newNotifier(w.changes); err != nil {
		w.cannotNotify(err)
	}
	// Nobody hears of a certificate that is fed before another turns out bad.
	found, _ := w.settle() // nobody can have closed it
	if err := errorsOf(found); err != nil {
		return err
	}
	return w.feed(found)
}

func (w *Watcher) run() {
	for {
		asked := false
		select {
		case <-w.stop:
			return
		case <-w.signals:
			asked = true
		case <-w.ticker.C:
		case <-w.changes:
			if !w.wait(gather) {
				return
			}
			select {
			case <-w.changes:
			default:
			}
		}
		err := w.Reload() // which has logged what is new in it
		switch {
		case !asked || errors.Is(err, errClosed):
		case err != nil:
			w.logger.Warn("certificate files were read, on a signal; some are bad", "error", err)
		default:
			w.logger.Info("certificate files were read, on a signal; all are good")
		}
	}
}

// Reload reads all files now, as Watch does at a change, and returns when what they say
// is live. The error says for each pair and pool what is wrong with it, each in a line
// of its own; what is wrong stays as it was, and the others are swapped. Several calls,
// and the Watcher's own, come one after the other.
func (w *Watcher) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	found, ok := w.settle()
	if !ok {
		return errClosed
	}
	return errors.Join(errorsOf(found), w.feed(found))
}

// Close ends the watching. When it has returned, nothing is fed any more, no goroutine
// of the Watcher runs, and the signal is as it was. What is live stays live. It waits
// for a look that is under way, which takes long only where the kernel does not answer,
// as with a dead NFS server, or [Options].Passphrase. It may be called more than once,
// and returns nil.
func (w *Watcher) Close() error {
	w.closing.Do(func() {
		close(w.stop)
		signal.Stop(w.signals)
		w.ticker.Stop()
	})
	w.running.Wait()
	w.mu.Lock() // after the last Reload
	defer w.mu.Unlock()
	if w.notify != nil {
		w.notify.close()
		w.notify = nil
	}
	return nil
}

// wait reports whether d has passed with no Close.
func (w *Watcher) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stop:
		return false
	}
}

// cannotNotify logs, once, that changes are only found by polling: err names another
// directory each time.
func (w *Watcher) cannotNotify(err error) {
	if !w.polled {
		w.logger.Warn("directories cannot be watched; changes are noticed by polling, by signal and by call alone", "error", err)
	}
	w.polled = true
}
