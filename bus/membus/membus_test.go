// SPDX-License-Identifier: Apache-2.0

package membus_test

import (
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/bus/membus"
)

func TestConformance(t *testing.T) {
	bustest.Run(t, engine)
}

func TestBoardConformance(t *testing.T) {
	bustest.RunBoard(t, engine)
}

func engine(*testing.T) bustest.Engine {
	l := membus.New()
	return bustest.Engine{
		Open:  func(*testing.T) bus.Log { return l },
		Other: func(*testing.T) bus.Log { return membus.New() },
	}
}
