// SPDX-License-Identifier: Apache-2.0

// Keeps the page as the events of the edge say. The page comes with the values of the
// moment, so all that is here is change. Text goes in by textContent alone.
(() => {
	"use strict";

	const maxTurns = 20, maxCards = 60; // as in edge.go
	const $ = (id) => document.getElementById(id);

	let certificates = new Map(), turns = [], main = "", total = 0;
	let offset = 0; // of the clock of the edge, in milliseconds

	// What things look like, as in page.go.

	const pad = (n) => String(n).padStart(2, "0");
	const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
	const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(d)}`;
	const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
	const short = (serial) => !serial ? "–" : serial.length > 12 ? serial.slice(0, 8) + "…" : serial;

	function remaining(ms) {
		const s = Math.ceil(ms / 1000);
		if (s >= 48 * 3600) return `${Math.floor(s / 86400)} days`;
		if (s >= 3600) return `${Math.floor(s / 3600)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
		return `${Math.floor(s / 60)}:${pad(s % 60)}`;
	}

	function countdown(c, now) {
		const from = Date.parse(c.notBefore), to = Date.parse(c.notAfter), next = c.next ? Date.parse(c.next) : NaN;
		if (now < from) return ["valid in", remaining(from - now)];
		if (now >= to) return ["expired", remaining(now - to) + " ago"];
		if (!(next <= to)) return ["expires in", remaining(to - now)];
		if (now >= next) return ["turns", "now"];
		return ["turns in", remaining(next - now)];
	}

	function percent(c, time) {
		const from = Date.parse(c.notBefore), life = Date.parse(c.notAfter) - from;
		return life > 0 ? 100 * Math.min(Math.max((time - from) / life, 0), 1) : 0;
	}

	// Putting it in.

	const field = (root, name) => root.querySelector(`[data-field="${name}"]`);

	function text(root, name, value) {
		const at = field(root, name);
		if (at && at.textContent !== String(value)) at.textContent = value;
		return at;
	}

	function moment(root, name, value, format) {
		const at = text(root, name, format(new Date(value)));
		if (at) at.setAttribute("datetime", value);
		return at;
	}

	function list(at, tag, values) {
		if (!at || at.childElementCount === values.length && values.every((v, i) => at.children[i].textContent === v)) return;
		at.replaceChildren(...values.map((value) => {
			const item = document.createElement(tag);
			item.textContent = value;
			return item;
		}));
	}

	function fillNumbers(root, thing) {
		text(root, "generation", thing.generation);
		const serial = text(root, "shortSerial", short(thing.serial));
		if (serial) serial.title = thing.serial;
	}

	function fillCertificate(root, c) {
		const more = c.moreNames ? [`and ${c.moreNames} more`] : [];
		list(field(root, "names"), "li", [...c.names, ...more]);
		list(field(root, "fingerprint"), "span", c.fingerprint.match(/.{1,8}/g) || []);
		fillNumbers(root, c);
		for (const name of ["serial", "issuer", "id", "epoch"]) text(root, name, c[name]);
		moment(root, "from", c.notBefore, day);
		moment(root, "to", c.notAfter, day);
		const mark = field(root, "mark");
		if (mark) {
			mark.setAttribute("visibility", c.next ? "visible" : "hidden");
			const at = c.next ? percent(c, Date.parse(c.next)) : 0;
			const label = text(root, "markText", c.next ? `turns ${clock(new Date(c.next))}` : "");
			label.setAttribute("x", at + "%");
			label.setAttribute("text-anchor", at < 15 ? "start" : at > 85 ? "end" : "middle");
			field(root, "markLine").setAttribute("x", at + "%");
		}
		tick(root, c);
	}

	function fillTurn(row, turn) {
		moment(row, "at", turn.at, clock).title = day(new Date(turn.at));
		text(row, "name", turn.names[0] || turn.id);
		fillNumbers(row, turn);
		text(row, "oldSerial", short(turn.oldSerial)).title = turn.oldSerial;
		text(row, "handshakes", number(turn.handshakes));
		text(row, "failed", number(turn.failed)).classList.toggle("some", turn.failed > 0);
	}

	const blank = (id) => $(id).content.firstElementChild.cloneNode(true);

	function flash(at) {
		at.classList.remove("turned");
		void at.getBoundingClientRect(); // starts the animation anew
		at.classList.add("turned");
	}

	// The certificates that are on the page: the large one, and the others by id.
	const cards = new Map();

	function render() {
		const large = certificates.get(main);
		$("none").hidden = !!large;
		$("large").hidden = !large;
		if (large) fillCertificate($("large"), large);
		document.title = large ? `Generation ${large.generation} · Keyturn` : "Keyturn";

		const name = (c) => c.names.join("\0") + "\0" + c.id;
		const rest = [...certificates.values()].filter((c) => c.id !== main)
			.sort((a, b) => name(a) < name(b) ? -1 : 1).slice(0, maxCards);
		const old = new Map(cards);
		cards.clear();
		for (const c of rest) {
			const card = old.get(c.id) || blank("small");
			fillCertificate(card, c);
			cards.set(c.id, card);
		}
		$("others").querySelector("ul").replaceChildren(...cards.values());
		$("others").hidden = rest.length === 0;
		const hidden = total - rest.length - (large ? 1 : 0);
		$("hidden").hidden = hidden <= 0;
		$("hidden").textContent = `And ${number(hidden)} more.`;
	}

	function renderTurns() {
		$("no-turns").hidden = turns.length > 0;
		$("turns").hidden = $("turns-note").hidden = turns.length === 0;
		$("turns").tBodies[0].replaceChildren(...turns.map((turn) => {
			const row = blank("turn");
			fillTurn(row, turn);
			return row;
		}));
	}

	// What goes on by itself.

	function tick(root, c) {
		const now = Date.now() + offset;
		const [before, time] = countdown(c, now);
		text(root, "before", before);
		text(root, "time", time).classList.toggle("some", before === "expired");
		field(root, "gone").setAttribute("width", percent(c, now).toFixed(2) + "%");
	}

	function tickAll() {
		if (certificates.has(main)) tick($("large"), certificates.get(main));
		for (const [id, card] of cards) tick(card, certificates.get(id));
		setTimeout(tickAll, 1000 - (Date.now() + offset) % 1000);
	}

	// What the edge tells.

	function common(u) {
		offset = Date.parse(u.now) - Date.now();
		main = u.main;
		total = u.count;
		$("served").textContent = number(u.served);
		$("failed").textContent = number(u.failed);
		$("failures").classList.toggle("some", u.failed > 0);
	}

	const told = {
		state(u) {
			certificates = new Map((u.certificates || []).map((c) => [c.id, c]));
			turns = u.turns || [];
			render();
			renderTurns();
		},
		set(u) {
			certificates.set(u.certificate.id, u.certificate);
			render();
		},
		turn(u) {
			const turn = u.turn;
			certificates.set(turn.id, turn);
			turns = [turn, ...turns].slice(0, maxTurns);
			render();
			renderTurns();
			flash(turn.id === main ? $("large") : cards.get(turn.id) || $("others"));
			flash($("turns").tBodies[0].rows[0]);
			$("said").textContent = `${turn.names[0] || turn.id} has turned to generation ${turn.generation}.`;
		},
		removed(u) {
			certificates.delete(u.id);
			render();
		},
		handshakes() {},
	};

	function status(live) {
		const text = live ? "Live" : "Not connected, trying again";
		$("status").classList.toggle("live", live);
		if ($("status").textContent !== text) $("status").textContent = text;
	}

	let source, again;

	function listen() {
		clearTimeout(again);
		if (source) source.close();
		source = new EventSource("/events");
		for (const name of Object.keys(told)) {
			source.addEventListener(name, (event) => {
				const u = JSON.parse(event.data);
				common(u);
				told[name](u);
				status(true);
			});
		}
		source.onerror = () => {
			status(false);
			// The browser itself tries again unless it was refused.
			if (source.readyState === EventSource.CLOSED) again = setTimeout(listen, 5000);
		};
	}

	// A page that nobody sees keeps no connection: a browser has few of them.
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) {
			clearTimeout(again);
			source.close();
		} else {
			listen();
		}
	});
	listen();
	tickAll();
})();
