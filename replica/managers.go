// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/seal"
)

// managersEvent is the file of the newest list of managers that was taken: the
// signed event, as it stands on the bus.
const managersEvent = "managers.event"

// readManagers reads whom a directory trusts. In a joined one that is the list
// that was followed last: it is written before managers.pub, which a crash may
// have left behind.
func (r *Replica) readManagers(dir string) error {
	pinned, err := seal.ReadVerifyKeyFile(filepath.Join(dir, ManagersFile))
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	r.managers.Store(&pinned)
	if r.member == nil {
		return nil
	}
	r.serial = r.member.Serial
	path := filepath.Join(dir, managersEvent)
	data, err := durable.ReadTrusted(path, event.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replica: the list of managers: %w", err)
	}
	set, err := newestManagers(pinned, r.serial, r.tenant, data)
	if err != nil {
		r.logger.Warn("the list of managers here does not follow from the keys that are pinned; those are trusted, and the bus is asked", "file", path, "error", err)
		return nil
	}
	trusted := set.Trusted()
	r.managers.Store(&trusted)
	r.serial, r.savedSerial = set.Serial, set.Serial
	if !sameSigners(pinned, trusted) {
		if err := seal.WriteVerifyKeyFile(filepath.Join(dir, ManagersFile), trusted...); err != nil {
			r.logger.Error("which managers are trusted could not be written down again; the list of them here is whole", "error", err)
		}
	}
	return nil
}

// newestManagers returns the newest set of a list that was verified before it
// was written, if it is what is pinned or follows from that.
func newestManagers(pinned []*seal.VerifyKey, serial uint64, tenant string, data []byte) (*event.ManagerSet, error) {
	set, err := event.OpenManagers(pinned, serial, tenant, data)
	if !errors.Is(err, seal.ErrUnknownSigner) {
		return set, err
	}
	// Who signed the newest set may not be in it any more.
	e, err2 := event.Trusted(tenant, data)
	if err2 != nil {
		return nil, err2
	}
	chain, ok := e.Body.(*event.ManagerChain)
	if !ok {
		return nil, err
	}
	last, err2 := event.Trusted(tenant, chain.Sets[len(chain.Sets)-1])
	if err2 != nil {
		return nil, err2
	}
	if set, ok := last.Body.(*event.ManagerSet); ok && set.Serial >= serial && sameSigners(set.Trusted(), pinned) {
		return set, nil
	}
	return nil, err
}

func sameSigners(a, b []*seal.VerifyKey) bool {
	return slices.EqualFunc(a, b, (*seal.VerifyKey).Equal)
}

// takeManagers follows the list of managers from those that are trusted to the
// newest. From then on nothing that a revoked one signed is taken. The error is
// that of writing the list down; it is in force all the same.
func (r *Replica) takeManagers(u bus.Update) error {
	if u.CaughtUp {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u.Key != event.ManagersKey {
		r.refuse(u.Key, RefusedMoved, errors.New("it is not the list of managers"))
		return nil
	}
	set, err := event.OpenManagers(*r.managers.Load(), r.serial, r.tenant, u.Data)
	if err != nil {
		r.refuse(u.Key, reasonOf(err), err)
		return nil
	}
	if trusted := set.Trusted(); set.Serial > r.serial || r.serial == 0 {
		if !sameSigners(*r.managers.Load(), trusted) {
			r.logger.Info("the managers that are trusted have changed", "serial", set.Serial, "managers", len(trusted))
		}
		r.managers.Store(&trusted)
		r.serial = set.Serial
		r.trusts()
	}
	if r.savedSerial == r.serial {
		return nil
	}
	if err := r.saveManagers(u.Data); err != nil {
		return fmt.Errorf("writing down which managers are trusted: %w", err)
	}
	r.savedSerial = r.serial
	return nil
}

func (r *Replica) saveManagers(data []byte) error {
	if err := durable.WriteFile(filepath.Join(r.dir, managersEvent), data, durable.PrivateFile); err != nil {
		return err
	}
	crash.Point(crash.ManagersKept)
	return seal.WriteVerifyKeyFile(filepath.Join(r.dir, ManagersFile), *r.managers.Load()...)
}

// trusts tries again what was refused because its signer was not known.
func (r *Replica) trusts() {
	if e := r.refusedMember; e != nil {
		if err := r.applyMember(*e); err != nil {
			r.logger.Error("the group's new keys are used, and lost at a restart", "error", err)
		}
	}
	if r.strangeChallenges {
		r.answers.again()
	}
	r.retry()
}
