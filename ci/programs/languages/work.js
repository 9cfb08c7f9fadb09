// Real work of node: an HTTP server with keep-alive clients, worker threads, files, child processes, timers, signals.
const http = require('http'), fs = require('fs'), path = require('path'), os = require('os'), net = require('net');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { spawn, execFile, execFileSync, fork } = require('child_process');
const crypto = require('crypto'), zlib = require('zlib');

if (!isMainThread) {
  const shared = new Int32Array(workerData.shared);
  let sum = 0;
  for (let i = workerData.from; i < workerData.to; i++) sum += i;
  Atomics.add(shared, 0, 1);
  Atomics.notify(shared, 0);
  parentPort.postMessage(sum);
} else if (process.argv[2] === 'child') {
  process.on('message', (m) => { process.send({ got: m.n * 2 }); process.disconnect(); });
} else {
  main().catch((e) => { console.log('failed', e); process.exit(1); });
}

function get(options) {
  return new Promise((resolve, reject) => {
    const r = http.request(options, (res) => {
      const parts = [];
      res.on('data', (d) => parts.push(d));
      res.on('end', () => resolve({ status: res.statusCode, body: Buffer.concat(parts) }));
    });
    r.on('error', reject);
    r.end(options.body);
  });
}

async function web() {
  const server = http.createServer((req, res) => {
    const hash = crypto.createHash('sha256');
    let n = 0;
    req.on('data', (d) => { hash.update(d); n += d.length; });
    req.on('end', () => {
      if (req.url === '/stream') { fs.createReadStream(process.execPath, { end: 999999 }).pipe(res); return; }
      res.setHeader('x-length', n);
      res.end(req.method + ' ' + req.url + ' ' + hash.digest('hex').slice(0, 12));
    });
  });
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  const port = server.address().port, agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const all = [];
  for (let i = 0; i < 200; i++) all.push(get({ port, host: '127.0.0.1', agent, method: 'POST', path: '/' + i, body: Buffer.alloc(i * 100, i) }));
  const answers = await Promise.all(all);
  const digest = crypto.createHash('sha256');
  for (const a of answers) digest.update(a.body);
  console.log('http', answers.length, answers.every((a) => a.status === 200), digest.digest('hex').slice(0, 16));
  const big = await get({ port, host: '127.0.0.1', path: '/stream' });
  console.log('stream', big.body.length);
  agent.destroy();
  await new Promise((r) => server.close(r));
}

async function workers() {
  const shared = new SharedArrayBuffer(4), parts = [];
  for (let i = 0; i < 6; i++) {
    parts.push(new Promise((resolve, reject) => {
      const w = new Worker(__filename, { workerData: { shared, from: i * 100000, to: (i + 1) * 100000 } });
      w.once('message', resolve);
      w.once('error', reject);
    }));
  }
  const sums = await Promise.all(parts);
  console.log('workers', sums.reduce((a, b) => a + b), new Int32Array(shared)[0]);
}

async function files() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'node-'));
  await Promise.all([...Array(100).keys()].map((i) => fs.promises.writeFile(path.join(dir, 'f' + i), 'x'.repeat(i * 10))));
  const names = (await fs.promises.readdir(dir)).length;
  let total = 0;
  for (let i = 0; i < 100; i++) total += (await fs.promises.stat(path.join(dir, 'f' + i))).size;
  const seen = new Promise((r) => { const w = fs.watch(dir, (kind, name) => { w.close(); r(kind + ' ' + name); }); });
  fs.writeFileSync(path.join(dir, 'new'), 'n');
  console.log('files', names, total, await seen);
  fs.renameSync(path.join(dir, 'f1'), path.join(dir, 'g1'));
  fs.symlinkSync('g1', path.join(dir, 'link'));
  console.log(fs.realpathSync(path.join(dir, 'link')).endsWith('g1'), fs.existsSync(path.join(dir, 'f1')));
  const packed = zlib.gzipSync(Buffer.alloc(1000000, 'quark'));
  await fs.promises.writeFile(path.join(dir, 'z'), packed);
  console.log('zlib', zlib.gunzipSync(fs.readFileSync(path.join(dir, 'z'))).length);
  fs.rmSync(dir, { recursive: true });
  console.log(fs.existsSync(dir));
}

async function children() {
  console.log('sync', execFileSync('sh', ['-c', 'echo out; echo err >&2; cat'], { input: 'in', stdio: ['pipe', 'pipe', 'ignore'] }).toString().replace('\n', ' '));
  const codes = await Promise.all([...Array(10).keys()].map((i) => new Promise((r) => spawn('sh', ['-c', 'exit ' + i]).on('exit', r))));
  console.log('exit', codes.join());
  const slow = spawn('sleep', ['100']);
  const ended = new Promise((r) => slow.on('exit', (code, signal) => r(signal)));
  slow.kill();
  console.log('signal', await ended);
  const child = fork(__filename, ['child']);
  const answer = new Promise((r) => child.on('message', r)), gone = new Promise((r) => child.on('exit', r));
  child.send({ n: 21 });
  console.log('fork', (await answer).got, await gone);
}

async function main() {
  console.log('node', typeof process.version, os.cpus().length > 0, os.totalmem() > 0, os.hostname());
  await web();
  await workers();
  await files();
  await children();
  const unix = net.createServer((s) => s.pipe(s)).listen('/tmp/node.sock');
  const echoed = await new Promise((r) => { const c = net.connect('/tmp/node.sock', () => c.end('through unix')); let t = ''; c.on('data', (d) => t += d); c.on('end', () => r(t)); });
  unix.close();
  console.log(echoed);
  const times = [];
  await Promise.all([30, 10, 20].map((ms) => new Promise((r) => setTimeout(() => { times.push(ms); r(); }, ms))));
  console.log('timers', times.join());
  const caught = new Promise((r) => process.once('SIGUSR2', r));
  process.kill(process.pid, 'SIGUSR2');
  console.log(await caught);
  process.exitCode = 3;
}
