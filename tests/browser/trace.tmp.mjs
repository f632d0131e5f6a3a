import { chromium } from "playwright-core";
const b = await chromium.launch({executablePath:"/usr/bin/chromium",headless:true,args:["--no-sandbox","--disable-gpu","--disable-quic","--no-first-run","--disable-background-networking","--disable-component-update","--disable-sync"]});
const p = await b.newPage({viewport:{width:1280,height:800}});
const t0=Date.now(); const log=(...a)=>console.log(((Date.now()-t0)/1000).toFixed(2),...a);
p.on("console",m=>log("console",m.text(),m.location().url)); 
p.on("requestfailed",r=>log("failed",r.url(),r.failure()?.errorText));
p.on("request",r=>/live|results/.test(r.url())&&log("request",r.url()));
p.on("response",r=>/live|results/.test(r.url())&&log("response",r.url(),r.status()));
await p.goto("http://127.0.0.1:18080/",{waitUntil:"domcontentloaded"});
await p.waitForTimeout(3000);
const pids=(await (await fetch("http://127.0.0.1:18080/api/processes")).json()).filter(r=>r.name=="gateway-worker").map(r=>r.pid);
const frames=()=>p.evaluate(()=>document.getElementById("live").dataset.state+" "+document.getElementById("fps").textContent+" "+document.getElementById("live-image").src.slice(-6));
for (const pid of pids){ log("kill",pid, await frames()); process.kill(pid,"SIGKILL"); for(let i=0;i<24;i++){await p.waitForTimeout(250); if(i<8||i%4==0) log(await frames());} }
await b.close();
