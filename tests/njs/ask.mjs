// Answers questions about the gate's functions, one JSON line each: {"module", "function", "arguments"}.
import readline from 'node:readline';
import claims from '../../nginx_njs/claims.js';
import request from '../../nginx_njs/request.js';
import token from '../../nginx_njs/token.js';

const modules = { claims, request, token };

for await (const line of readline.createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    const answer = await modules[question.module][question.function](...question.arguments);
    process.stdout.write(`${JSON.stringify(answer ?? null)}\n`);
}
