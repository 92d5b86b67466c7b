// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/issuer/policy"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
)

const (
	nameX509    = "crypto/x509"
	nameLocal   = "built-in CA"
	nameLimited = "built-in CA, limited"
	nameAppend  = "the bus, one append"
	nameManaged = "manager, bus, replica"

	// timesX509 is the most that issuing may take as a multiple of what crypto/x509
	// needs for the same.
	timesX509 = 1.1
	// shareOfAppends is how many renewals there have to be for an acknowledged append.
	shareOfAppends = 0.4
)

// private measures the built-in CA: a certificate from a new key on, beside
// crypto/x509 alone.
func (b *bench) private() ([]row, error) {
	names := []string{"www.example.com", "example.com"}
	limits := localca.Config{
		Permitted: policy.Names{DNS: []string{"example.com", "example.net"}}, Excluded: policy.Names{IP: []string{"0.0.0.0/0", "::/0"}},
		Allowed: policy.Names{DNS: []string{".example.com", "example.com"}}, Usages: []string{"server", "client"},
	}
	contenders := []contender{{name: nameX509, run: func(times int) error {
		for range times {
			if err := b.ca.bare(names); err != nil {
				return err
			}
		}
		return nil
	}}}
	for _, c := range []struct {
		name   string
		config localca.Config
	}{{nameLocal, localca.Config{}}, {nameLimited, limits}} {
		ca, err := localca.New(c.config)
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, contender{name: c.name, run: func(times int) error {
			for range times {
				if err := issueOne(ca, names); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	all, err := interleave(b.rounds, 10*b.slice, contenders)
	if err != nil {
		return nil, err
	}
	const work = "issue, from the key on"
	rows := []row{ordered(work, all[0], nil, 1)}
	for _, s := range all[1:] {
		r := ordered(work, s, &all[0], 1)
		r.aim(fmt.Sprintf("≤ %.1f × %s", timesX509, nameX509), r.Ratio.Median <= timesX509)
		rows = append(rows, r)
	}
	return rows, nil
}

func issueOne(ca *localca.CA, names []string) error {
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	csr, err := issuer.NewRequest(key, names)
	if err != nil {
		return err
	}
	_, err = ca.Issue(context.Background(), csr, 0)
	return err
}

// bare makes a certificate with crypto/x509 alone: a key, a request, its check, and a
// certificate with what one of the built-in CA has.
func (a *authority) bare(names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return err
	}
	now := time.Now()
	_, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(0, 1, 0), DNSNames: csr.DNSNames,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: policy.AllUsages(), BasicConstraintsValid: true, SubjectKeyId: a.cert.SubjectKeyId,
	}, a.cert, csr.PublicKey, a.key)
	return err
}

// private renewals: what a manager, the bus of `keyturn serve` and a replica make of
// the built-in CA, beside what the bus takes of entries of the same size.
func (b *bench) renewPrivate() (_ []row, err error) {
	m, err := b.manageOnNATS()
	if err != nil {
		return nil, err
	}
	defer m.close()
	if err := m.beginWith("issuers: {internal: {type: local}}", b.renewals); err != nil {
		return nil, err
	}
	f, err := newFollowed(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.replica.Close()) }()
	state, err := m.log.Get(context.Background(), event.StateKey(m.ids[0]))
	if err != nil {
		return nil, err
	}
	w := &appender{log: m.log, size: len(state.Data), at: make([]bus.Position, b.renewals)}
	all, err := interleave(max(3, b.orders/4), time.Millisecond, []contender{
		{name: nameAppend, run: w.run},
		{name: nameManaged, run: f.renew},
	})
	if err != nil {
		return nil, err
	}
	work := fmt.Sprintf("renew by the built-in CA, %d at once", atOnce)
	r := ordered(work, all[1], &all[0], b.renewals)
	r.aim(fmt.Sprintf("≤ %.1f × %s", 1/shareOfAppends, nameAppend), r.Ratio.Median <= 1/shareOfAppends)
	return []row{ordered(work, all[0], nil, b.renewals), r}, nil
}

// followed is a manager whose certificates a replica follows.
type followed struct {
	*managed
	replica *replica.Replica
	taken   atomic.Int64  // changes of the replica's store
	told    chan struct{} // that there was one
}

func newFollowed(m *managed) (*followed, error) {
	f := &followed{managed: m, told: make(chan struct{}, 1)}
	var err error
	f.replica, err = replica.Open(context.Background(), replica.Config{
		Log: m.log, Managers: m.signers, Keys: m.keys, Group: manager.DefaultGroup, Logger: slog.New(slog.DiscardHandler),
		OnChange: func(replica.Change) {
			f.taken.Add(1)
			select {
			case f.told <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return f, f.wait(int64(len(m.ids)))
}

// wait returns when the replica has taken so many generations.
func (f *followed) wait(want int64) error {
	limit := time.After(5 * time.Minute)
	for f.taken.Load() < want {
		select {
		case <-f.told:
		case <-limit:
			return fmt.Errorf("the replica has %d of %d generations after five minutes", f.taken.Load(), want)
		}
	}
	return nil
}

// renew renews every certificate, and returns when the replica serves all.
func (f *followed) renew(times int) error {
	for range times {
		want := f.taken.Load() + int64(len(f.ids))
		err := together(len(f.ids), func(i int) error {
			_, err := f.m.Renew(context.Background(), f.ids[i], event.ReasonRenewal)
			return err
		})
		if err == nil {
			err = f.wait(want)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", nameManaged, err)
		}
	}
	return nil
}

// An appender writes entries of one size, each key's in its turn.
type appender struct {
	log  bus.Log
	size int
	at   []bus.Position
}

func (w *appender) run(times int) error {
	for range times {
		if err := together(len(w.at), w.append); err != nil {
			return fmt.Errorf("%s: %w", nameAppend, err)
		}
	}
	return nil
}

func (w *appender) append(i int) (err error) {
	data := make([]byte, w.size)
	_, _ = rand.Read(data) // never fails: see crypto/rand
	w.at[i], err = w.log.Append(context.Background(), event.BudgetKey("bench", fmt.Sprint(i)), w.at[i], data)
	return err
}

// together does work n times, as many at once as a manager would.
func together(n int, work func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, atOnce) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = work(i)
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}
