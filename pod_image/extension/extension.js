// What only the editor knows, for the node's agent: whether somebody is at the keys, and which tasks run.
//
// Each window writes one small file into the pod's shared memory, which no archive holds; the agent reads it from
// outside. A warning comes the other way, in a file that the agent writes and the pod can only read. Nothing here
// is secret or has credentials: a pod's user can say what they like, about their own pod only. Without this
// extension codepods works, coarser. node_agent/editor_files.py is the other side.
'use strict';

const fs = require('fs');
const path = require('path');
const vscode = require('vscode');

const SPEECH_DIR = '/dev/shm/codepods';
const WARNING_FILE = '/run/codepods/warning.json';
const SPEAK_EVERY_MS = 5000;
const LISTEN_EVERY_MS = 2000;
// VS Code calls a window active until nobody has touched it for 30 to 60 s.
const ACTIVE_FOR_MS = 30000;
const KEEP = 'Keep it running';

class Presence {
    constructor() {
        this.file = path.join(SPEECH_DIR, `${process.pid}.json`);
        this.active = vscode.window.state.active;
        this.activeAtMs = Date.now();
        this.keep = null;
        this.warnedOf = null;
    }

    touched() {
        this.activeAtMs = Date.now();
        this.speak();
    }

    windowChanged(state) {
        if (this.active && !state.active) {
            this.activeAtMs = Math.max(this.activeAtMs, Date.now() - ACTIVE_FOR_MS);
        }
        this.active = state.active;
        if (state.active) {
            this.activeAtMs = Date.now();
        }
        this.speak();
    }

    speak() {
        const now = Date.now();
        const said = {
            at_ms: now,
            active_at_ms: this.active ? now : this.activeAtMs,
            tasks: vscode.tasks.taskExecutions.filter((running) => !running.task.isBackground).length,
            keep: this.keep,
        };
        try {
            fs.mkdirSync(SPEECH_DIR, { recursive: true, mode: 0o700 });
            fs.writeFileSync(`${this.file}.new`, JSON.stringify(said), { mode: 0o600 });
            fs.renameSync(`${this.file}.new`, this.file);
        } catch {
            // Shared memory is full, or not ours: the agent goes by what it sees from outside.
        }
    }

    listen() {
        let warning;
        try {
            warning = JSON.parse(fs.readFileSync(WARNING_FILE, 'utf8'));
        } catch {
            this.warnedOf = null;
            return;
        }
        if (warning.id !== this.warnedOf) {
            this.warnedOf = warning.id;
            this.warn(warning);
        }
    }

    async warn(warning) {
        const minutes = Math.max(0, warning.stops_at_ms - Date.now()) / 60000;
        const when = minutes < 2 ? `${Math.round(minutes * 60)} seconds` : `${Math.round(minutes)} minutes`;
        const buttons = warning.can_extend ? [KEEP] : [];
        const answer = await vscode.window.showWarningMessage(
            `This pod stops in ${when} (${warning.why}). Your files are kept; the link opens it again.`, ...buttons);
        if (answer === KEEP) {
            this.keep = warning.id;
            this.touched();
        }
    }

    silence() {
        fs.rmSync(this.file, { force: true });
    }
}

function activate(context) {
    const presence = new Presence();
    const every = (ms, job) => {
        const timer = setInterval(job, ms);
        return { dispose: () => clearInterval(timer) };
    };
    context.subscriptions.push(
        vscode.window.onDidChangeWindowState((state) => presence.windowChanged(state)),
        vscode.tasks.onDidStartTask(() => presence.speak()),
        vscode.tasks.onDidEndTask(() => presence.speak()),
        every(SPEAK_EVERY_MS, () => presence.speak()),
        every(LISTEN_EVERY_MS, () => presence.listen()),
        { dispose: () => presence.silence() },
    );
    presence.speak();
    presence.listen();
}

module.exports = { activate };
